"""Scripted conversations: the same each time, and checks that take right for right and wrong for wrong."""

import pytest

from llmjobs.chat.strategies import make_strategy
from llmjobs.converse.conversations import KINDS, SETS, Turn, data_hash, make_scripts
from llmjobs.extensions import STRATEGIES
from llmjobs.manifest.chat import SetName, StrategyName

DISTANCES = [1, 2, 4, 8, 16, 30]


@pytest.mark.parametrize("name", SETS)
def test_the_same_each_time_and_another_with_another_seed(name):
    scripts = make_scripts(name, 24, 0, DISTANCES)
    assert data_hash(scripts) == data_hash(make_scripts(name, 24, 0, DISTANCES))
    if name != "written":
        assert len(scripts) == 24
        assert data_hash(scripts) != data_hash(make_scripts(name, 24, 1, DISTANCES))
    assert len({script.id for script in scripts}) == len(scripts)


@pytest.mark.parametrize("name", SETS)
def test_every_question_can_be_answered(name):
    for script in make_scripts(name, 60, 3, DISTANCES):
        questions = [(place, turn) for place, turn in enumerate(script.turns) if turn.kind]
        assert questions
        for place, turn in questions:
            assert turn.kind in KINDS and turn.expected and 1 <= turn.distance <= place
            assert turn.is_right(f"It is {turn.expected}.")
            assert not turn.is_right("I do not know.")
            for other in turn.others:
                assert not turn.is_right(f"It is {other}.") or turn.must_end


def test_everyday_has_every_kind_and_distance():
    scripts = make_scripts("everyday", 30, 0, DISTANCES)
    found = {(turn.kind, turn.distance) for script in scripts for turn in script.turns if turn.kind}
    assert found == {(kind, distance) for kind in KINDS for distance in DISTANCES}


@pytest.mark.parametrize("script", make_scripts("everyday", 60, 5, DISTANCES), ids=lambda script: script.id)
def test_a_fact_stands_at_its_distance(script):
    place, question = next((i, turn) for i, turn in enumerate(script.turns) if turn.kind)
    told = script.turns[place - question.distance].text
    assert told not in [turn.text for turn in script.turns[place - question.distance + 1 : place]]
    if question.kind == "arithmetic":
        numbers = [
            int(w) for i in (1, 0) for w in script.turns[place - question.distance - i].text.split() if w.isdigit()
        ]
        assert sum(numbers) == int(question.expected)
    else:
        assert question.expected in told


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("You live in Rome.", True),
        ("ROME!", True),
        ("Romeo", False),
        ("Rome, not Paris.", False),
        ("It's Rome’s centre", True),
        ("", False),
    ],
)
def test_words_not_letters(answer, right):
    assert Turn("?", "recall", "Rome", 1, ("Paris",)).is_right(answer) == right


def test_numbers_in_words_and_the_ending():
    assert Turn("?", "arithmetic", "9", 1).is_right("You have nine apples.")
    assert not Turn("?", "arithmetic", "9", 1).is_right("You have 90 apples.")
    ending = Turn("?", "instruction", "over", 1, must_end=True)
    assert ending.is_right("A pear. Over!") and not ending.is_right("Over and out.")


def test_the_manifest_knows_the_same_names():
    assert SetName.__args__ == tuple(SETS)
    assert StrategyName.__args__ == tuple(STRATEGIES)
    assert all(make_strategy(name).name == name for name in STRATEGIES)
