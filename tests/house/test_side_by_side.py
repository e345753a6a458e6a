"""Where tests run side by side, those that disturb each other stay together, and the places named are there."""

from pathlib import Path

from side_by_side import LONGEST, SPREAD, TOGETHER, scope_of, turn_of

ROOT = Path(__file__).parents[2]
ALONE = "tests/test_messages.py::test_the_line_that_people_get[no manifest]"


def test_every_place_is_there():
    assert [place for place in (*TOGETHER, *LONGEST, *SPREAD) if not (ROOT / place).exists()] == []


def test_who_stays_with_whom():
    assert scope_of("tests/cluster/test_crew.py::test_a") == scope_of("tests/mtbench/test_mtbench_cluster.py::test_b")
    assert scope_of("tests/eval/test_eval.py::test_a") == scope_of("tests/eval/test_eval.py::test_b")
    assert scope_of("tests/eval/test_eval.py::test_a") != scope_of("tests/eval/test_eval_slow.py::test_a")
    assert scope_of(ALONE) == ALONE


def test_the_longest_begin_and_the_short_ones_end():
    names = [f"{LONGEST[0]}::test_a", f"{LONGEST[1]}::test_a", "tests/eval/test_eval.py::test_a", ALONE]
    assert sorted(reversed(names), key=turn_of) == names
