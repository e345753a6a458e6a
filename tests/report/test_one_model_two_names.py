"""Two names for the same weights with the same settings: the report says so, and how often their answers are equal."""

from pathlib import Path

from run_folders import FakeRun

from llmjobs.make_report import make_report

SAME = {"revision": "sha256:" + "ab" * 32}


def notices(run: FakeRun, tmp_path: Path) -> list[str]:
    made = make_report([run.write(tmp_path / "run")], tmp_path / "out" / "report.pdf")
    return [str(notice) for notice in made.notices if "two names" in str(notice)]


def test_the_same_weights_under_two_names(tmp_path: Path) -> None:
    (line,) = notices(FakeRun(questions=20, settings={"large": SAME, "small": SAME}), tmp_path)
    assert line.startswith("large and small: two names for one model: the same weights (sha256:abab")
    assert "of 60 questions" in line


def test_other_weights_or_settings_are_other_models(tmp_path: Path) -> None:
    assert notices(FakeRun(questions=10), tmp_path / "a") == []
    other = {"large": SAME, "small": SAME | {"quantization": "4bit"}, "middle": SAME | {"adapter": "mine"}}
    assert notices(FakeRun(questions=10, settings=other), tmp_path / "b") == []
