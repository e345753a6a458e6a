"""Figures stay behind names that read from right to left, in sentences, cells, plots, notes and the web page."""

from pathlib import Path

import pytest
from run_folders import FakeRun

from llmjobs.make_report import make_report
from llmjobs.report.text.shaping import END, FIRST, isolated, marked, set_line

HEBREW, ARABIC, MIXED = "דגם-א", "نموذج ب 2.5", "llama-עברית"


def printed(text: str, right: bool = False) -> list[str]:
    """What stands on the line from left to right, run by run."""
    return [run.text for run in set_line(text, "regular", right)]


@pytest.fixture(autouse=True)
def _packages() -> None:
    pytest.importorskip("uharfbuzz")
    pytest.importorskip("bidi")


@pytest.mark.parametrize("name", [HEBREW, MIXED])
def test_figures_stay_behind_a_name(name: str) -> None:
    sentence = f"{name} 78.2% (75.5%–80.6%), the most"
    with isolated([name]):
        runs = printed(sentence)
    assert runs[-1] == " 78.2% (75.5%–80.6%), the most"
    if name == HEBREW:
        assert printed(sentence)[-1] != runs[-1], "without isolates the figures move"


def test_two_names_keep_their_figures_and_their_order() -> None:
    with isolated([HEBREW, ARABIC]):
        text = " ".join(printed(f"{HEBREW} 78.2, {ARABIC} 64.6"))
    places = [text.index(part) for part in ("דגם", "78.2", "نموذج", "64.6")]
    assert places == sorted(places)


def test_the_number_in_a_name_belongs_to_the_name() -> None:
    with isolated([ARABIC]):
        runs = printed(f"{ARABIC} 64.6")
    assert runs[0] == "2.5", "read from right to left, the number is the name's last word"
    assert runs[-1] == " 64.6"


def test_a_line_may_break_inside_a_name() -> None:
    with isolated(["מודל גדול"]):
        assert printed("גדול 64.6%") == ["גדול", " 64.6%"]


def test_running_text_keeps_its_order() -> None:
    question = "זה מודל גדול מאוד"
    with isolated(["מודל"]):
        assert printed(question) == printed(question, right=True)


def test_marks_are_for_browsers_and_editors() -> None:
    with isolated([HEBREW]):
        assert marked(f"{HEBREW} 78.2%") == f"{FIRST}{HEBREW}{END} 78.2%"
        assert marked("llama 78.2%") == "llama 78.2%"
    assert marked(f"{HEBREW} 78.2%") == f"{HEBREW} 78.2%"


def test_a_report_keeps_the_figures_behind_the_names(tmp_path: Path) -> None:
    run = FakeRun(skills={HEBREW: 0.8, ARABIC: 0.3}, subjects=("תורה", "law"), questions=40).write(tmp_path / "run")
    make_report([run], tmp_path / "out" / "report.pdf", html=True)
    notes = (tmp_path / "out" / "notes.md").read_text(encoding="utf-8")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"{FIRST}{HEBREW}{END} has" in notes
    assert "\\u2068" in page
    assert FIRST not in (tmp_path / "out" / "summary.csv").read_text(encoding="utf-8"), "data stays as it was"
