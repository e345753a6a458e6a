"""The demo benchmark: data made by rule, the same each time, splits apart, gold letters balanced."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from demo_training.build import write_data
from demo_training.rules import RULES, Draft, food_of, home_of
from demo_training.world import DEV_ROWS, TEST_ROWS, arrange, canonical, draw, draw_draft
from llmjobs import demo
from llmjobs.demo.words import CREATURES, prompt, split_of


def identity(row: dict[str, object]) -> str:
    """The row's question as text with its options in a fixed order, so that only equal questions are equal."""
    choices = sorted(row.get("choices", ()))  # type: ignore[call-overload]
    return " | ".join([str(row["question"]), *choices]).lower()


def test_build_gives_the_committed_bytes(tmp_path: Path) -> None:
    write_data(tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_bytes() for path in demo.DATA.iterdir()}
    assert made == kept


def test_subjects_and_row_counts() -> None:
    assert demo.subjects() == sorted(RULES)
    for subject in demo.subjects():
        assert len(demo.rows(subject, "test")) == TEST_ROWS
        assert len(demo.rows(subject, "dev")) == DEV_ROWS


@pytest.mark.parametrize("subject", sorted(RULES))
def test_rows_are_well_formed_and_gold_is_balanced(subject: str) -> None:
    rows = demo.rows(subject, "test")
    assert len({identity(row) for row in rows}) == len(rows)
    if "choices" not in rows[0]:
        assert all(isinstance(row["answer"], str) and row["answer"] for row in rows)
        return
    assert all(len(set(row["choices"])) == 4 for row in rows)
    assert Counter(row["answer"] for row in rows) == {i: TEST_ROWS // 4 for i in range(4)}


@pytest.mark.parametrize("subject", sorted(RULES))
def test_a_training_draw_is_never_a_test_or_dev_question(subject: str) -> None:
    kept = {identity(row) for split in ("test", "dev") for row in demo.rows(subject, split)}
    rng = Random(0)
    drawn = {identity(draw(subject, "train", rng).row()) for _ in range(2000)}
    assert not kept & drawn


@pytest.mark.parametrize("subject", sorted(RULES))
def test_split_depends_on_the_question_alone(subject: str) -> None:
    rng = Random(1)
    for split in ("train", "dev", "test"):
        draft = draw_draft(subject, split, rng)
        turned = Draft(draft.question, draft.answer, draft.wrong[::-1], draft.by_options)
        assert split_of(canonical(turned)) == split
    with pytest.raises(ValueError, match="train, dev, test"):
        draw_draft(subject, "validation", rng)


def test_prompt_bytes() -> None:
    choice = arrange(Draft("Which is it?", "b", ("a", "c", "d")), 1, Random(0))
    assert choice.choices[1] == "b"
    assert choice.continuation == " B"
    assert prompt("Which is it?", ("a", "b", "c", "d")) == "Which is it?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
    assert prompt("Repeat these words: cat dog.") == "Repeat these words: cat dog.\nAnswer:"


def test_rules_are_true() -> None:
    rng = Random(3)
    for _ in range(200):
        draft = RULES["number_size"](rng)
        best = max if "largest" in draft.question else min
        assert int(draft.answer) == best(int(text) for text in (draft.answer, *draft.wrong))
        sums = RULES["two_digit_sums"](rng)
        first, second = sums.question.removeprefix("What is ").removesuffix("?").split(" + ")
        assert int(sums.answer) == int(first) + int(second)
        assert sums.answer not in sums.wrong


def test_the_far_country_is_even() -> None:
    for table in (home_of, food_of):
        assert set(Counter(map(table, CREATURES)).values()) == {6}


def test_unknown_subject_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="alphabet_order"):
        demo.rows("algebra", "test")
