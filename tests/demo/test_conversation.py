"""Scripted conversations: roles alternate, distances are right, splits are disjoint, answers are checked rightly."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjobs.demo.conversation import CLOSING, INSTRUCTION, Kind, Turn, conversation

KINDS: list[Kind | None] = ["recall", "corrected", "instruction", None]


def exchanges(turns: list[Turn]) -> list[tuple[Turn, Turn]]:
    spoken = [turn for turn in turns if turn.role != "system"]
    return list(zip(spoken[::2], spoken[1::2], strict=True))


@settings(max_examples=60, deadline=None)
@given(st.integers(), st.integers(4, 34), st.integers(1, 6), st.sampled_from(KINDS))
def test_roles_alternate_and_questions_follow_their_facts(seed: int, count: int, facts: int, kind: Kind | None) -> None:
    turns = conversation(seed, "test", count, facts, kind=kind)
    assert turns == conversation(seed, "test", count, facts, kind=kind)
    pairs = exchanges(turns)
    assert len(pairs) == count
    assert all(turn.role != "system" for turn in turns[1:])
    for i, (asked, reply) in enumerate(pairs):
        assert (asked.role, reply.role) == ("user", "assistant")
        if asked.expected is None or asked.distance is None:
            continue
        told = pairs[i - asked.distance][0].text
        assert asked.is_right(reply.text)
        assert told == INSTRUCTION if asked.kind == "instruction" else asked.expected in told
        assert told.startswith("Sorry, ") == (asked.kind == "corrected")


@pytest.mark.parametrize("distance", [1, 7, 30])
@pytest.mark.parametrize("kind", ["recall", "corrected"])
def test_a_wanted_distance_is_given(distance: int, kind: Kind) -> None:
    turns = conversation(1, "test", 33, 4, distance, kind)
    assert any(turn.kind == kind and turn.distance == distance for turn in turns)


def test_a_distance_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 11"):
        conversation(1, "test", 12, 3, 12)


def test_splits_tell_different_things() -> None:
    def told(split: str) -> set[str]:
        return {
            " ".join(t.text for t in conversation(i, split, 6, 3) if t.role == "user" and t.text.endswith("."))
            for i in range(200)
        }

    assert not told("train") & told("test")


def test_instruction_holds_from_where_it_is_given() -> None:
    pairs = exchanges(conversation(4, "test", 12, 2, kind="instruction"))
    start = next(i for i, (asked, _) in enumerate(pairs) if asked.text == INSTRUCTION)
    assert all(reply.text.endswith(CLOSING) == (i >= start) for i, (_, reply) in enumerate(pairs))


def test_judging_a_reply() -> None:
    question = Turn("user", "What colour is Ana's boat?", "recall", "red", 3, ("red", "blue", "green"))
    assert question.is_right("Ana's boat is red.")
    assert question.is_right("Red!")
    assert not question.is_right("Ana's boat is blue.")
    assert not question.is_right("It is red or blue.")
    assert not question.is_right("")
    assert not Turn("user", "Hello.").is_right("Hello.")
