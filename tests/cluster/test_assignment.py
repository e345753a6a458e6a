"""Which unit a worker takes next: a model stays loaded, the heaviest comes first, help comes where it pays."""

from hypothesis import given
from hypothesis import strategies as st

from llmjobs.cluster.resources import Demand
from llmjobs.cluster.run import Assignment
from llmjobs.work.units import Unit

ONE = Demand()


def units(**groups):
    """``big=3`` makes three units of ten items."""
    return [Unit(f"{group}/{n}", {}, group, 10) for group, count in groups.items() for n in range(count)]


def demands(*names, **weights):
    return {name: Demand(weight=weights.get(name, 1.0)) for name in names}


def test_the_heaviest_model_first_and_a_worker_stays_with_it():
    work = Assignment(units(small=2, big=2), demands("small", "big", big=9.0))
    assert work.take("w", ONE, None).path == "big/0"
    assert work.take("w", ONE, "big").path == "big/1"
    assert work.take("w", ONE, "big").path == "small/0"


def test_nobody_joins_a_model_before_it_is_loaded_once():
    work = Assignment(units(only=5), demands("only"))
    assert work.take("a", ONE, None)
    assert work.take("b", ONE, None) is None
    assert work.demands() == {ONE: 0}
    work.learn("only", load_s=1.0, item_s=1.0)
    assert work.demands() == {ONE: 4}
    assert work.take("b", ONE, None).path == "only/1"


def test_nobody_joins_where_loading_takes_longer_than_what_is_left():
    work = Assignment(units(only=2), demands("only"))
    work.take("a", ONE, None)
    work.learn("only", load_s=60.0, item_s=1.0)
    assert work.take("b", ONE, None) is None


def test_measured_speed_decides_between_models():
    work = Assignment(units(a=1, b=3, c=2), demands("a", "b", "c", a=1.0, b=1.0, c=1.0))
    assert work.take("w", ONE, None).group == "b"
    work.learn("b", load_s=0.0, item_s=5.0)
    work.learn("c", load_s=0.0, item_s=50.0)
    assert work.take("v", ONE, None).group == "c"


def test_a_worker_takes_only_what_it_has_the_resources_for():
    gpu = Demand(gpus=1.0)
    work = Assignment(units(a=1, b=1), {"a": ONE, "b": gpu})
    assert work.take("w", gpu, None).group == "b"
    assert work.take("w", gpu, "b") is None
    assert work.demands() == {ONE: 1}


def test_what_comes_back_comes_first_and_a_lost_worker_holds_nothing():
    work = Assignment(units(a=2), demands("a"))
    unit = work.take("w", ONE, None)
    work.forget_worker("w")
    work.give_back(unit)
    assert work.take("v", ONE, None) == unit


@given(
    groups=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 6), min_size=1),
    choices=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["end", "fail", "die", "load"])), max_size=60),
)
def test_whatever_happens_each_unit_ends_exactly_once(groups, choices):
    work = Assignment(units(**groups), demands(*groups))
    having, held, ended = {}, {}, []

    def go_on(worker, what):
        unit = having.pop(worker, None)
        if unit is None:
            unit = work.take(worker, ONE, held.get(worker))
            if unit:
                assert unit.path not in {one.path for one in having.values()} and unit.path not in ended
                having[worker], held[worker] = unit, unit.group
        elif what == "end":
            ended.append(unit.path)
            work.ended(unit)
        elif what == "load":
            work.learn(unit.group, load_s=0.1, item_s=0.1)
            having[worker] = unit
        else:
            if what == "die":
                work.forget_worker(worker)
                held.pop(worker)
            work.give_back(unit)

    for number, what in choices:
        go_on(f"w{number}", what)
    for _ in range(200):
        for number in range(4):
            go_on(f"w{number}", "end")
    assert work.is_over
    assert sorted(ended) == sorted(unit.path for unit in units(**groups))
