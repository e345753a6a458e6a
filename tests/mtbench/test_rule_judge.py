"""The judge by rule: the offline manifest shows a table."""

import re
from pathlib import Path

import pytest
from mtbench_runs import part_of, records_of, run

from llmjobs.mtbench.judging import RuleJudge, rate, read_rating, read_verdict
from llmjobs.mtbench.questions import Question, read_questions

MANIFEST = Path(__file__).parents[2] / "manifests/mtbench.yaml"
ASKED = "What is my name?"


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("Your name is Ben.", 10),
        ("your name is ben", 10),
        ("Your name is Dan.", 4),
        ("Ben", 3),
        ("I see.", 1),
        ("", 1),
        ("Your name is Ben. " * 50, 1),
    ],
)
def test_a_rating_is_the_agreement_with_the_reference(answer, rating):
    assert rate(answer, "Your name is Ben.", ASKED) == rating


def test_a_question_without_a_reference_gets_no_rating():
    said = RuleJudge(Question("1", "x", (ASKED,)), 1, ["Ben."]).ask("").text
    assert read_rating(said) is None and read_verdict(said) is None


def test_demo_questions_have_a_reference_for_each_turn():
    for question in read_questions("demo"):
        assert question.reference is not None and len(question.turns) == len(question.reference) == 2


def test_the_offline_manifest_shows_a_table(tmp_path, capsys):
    arguments = ["--set", "mtbench.limit=1", MANIFEST, "--results", tmp_path]
    run(*arguments)
    out = capsys.readouterr().out
    assert "judge rule-judge · ratings from 1 to 10 · by rule, not by a model" in out
    assert re.search(r"demo-base +\d\.\d\d \(", out) and "0 unread" in out
    part = part_of_run(tmp_path)
    scores = {row["model"]: row["score"] for row in part["scores"]}
    assert scores["demo-base"] > scores["demo-base.no-history"] > scores["demo-narrow"]
    assert all(row["unread"] == 0 and row["is_rules"] for row in part["judges"])
    assert part["spending"]["calls"] == 0
    before = records_of(tmp_path)
    run(*arguments)
    assert records_of(tmp_path) == before


def part_of_run(results: Path) -> dict:
    (results / "study").symlink_to(results / "mtbench")
    found = part_of(results)
    (results / "study").unlink()
    return found


def test_the_rules_are_not_fetched_or_loaded(capsys):
    from llmjobs.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["fetch", str(MANIFEST), "--dry-run"])
    assert ended.value.code == 0 and "rule-judge" not in capsys.readouterr().out
