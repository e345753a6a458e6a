"""Order of questions, capital, limits and rules of a race: against exact enumeration, plain loops and simulations."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from llmjobs.statistics import sequential
from llmjobs.statistics.sequential import Race, Rule, block_sizes, macro_accuracy, question_blocks, questions_needed

Bools = NDArray[np.bool_]


def pivotal_by_steps(chances: Sequence[Fraction]) -> dict[frozenset[int], Fraction]:
    """Distribution of ordered pivotal sampling, one duel of two questions after the other (Deville and Tillé 1998)."""
    states = {(frozenset[int](), 0, chances[0]): Fraction(1)}  # taken, undecided question, its probability
    for new in range(1, len(chances)):
        following: dict[tuple[frozenset[int], int, Fraction], Fraction] = {}
        for (taken, old, weight), p in states.items():
            both = weight + chances[new]
            if weight in (0, 1):  # decided already
                results = [((taken | {old} if weight else taken, new, chances[new]), Fraction(1))]
            elif both <= 1:
                results = [((taken, old, both), weight / both), ((taken, new, both), chances[new] / both)]
            else:
                first = (1 - chances[new]) / (2 - both)
                results = [((taken | {old}, new, both - 1), first), ((taken | {new}, old, both - 1), 1 - first)]
            for state, share in results:
                following[state] = following.get(state, Fraction(0)) + p * share
        states = following
    found: dict[frozenset[int], Fraction] = {}
    for (taken, old, weight), p in states.items():
        assert weight in (0, 1) or p == 0
        chosen = taken | {old} if weight else taken
        found[chosen] = found.get(chosen, Fraction(0)) + p
    return {chosen: p for chosen, p in found.items() if p}


def drawn_exactly(count: int, size: int) -> dict[frozenset[int], Fraction]:
    """Distribution of what the module draws: every result of every random number, with its probability."""

    def branch(given: list[int]) -> Iterator[tuple[frozenset[int], Fraction]]:
        bounds: list[int] = []

        class More(Exception):
            pass

        def below(bound: int) -> int:
            bounds.append(bound)
            if len(bounds) > len(given):
                raise More
            return given[len(bounds) - 1]

        try:
            taken = frozenset(sequential._pivotal(count, size, below))
        except More:
            for value in range(bounds[-1]):
                yield from branch([*given, value])
        else:
            yield taken, Fraction(1, int(np.prod(bounds)))

    found: dict[frozenset[int], Fraction] = {}
    for taken, p in branch([]):
        found[taken] = found.get(taken, Fraction(0)) + p
    return found


@pytest.mark.parametrize(("count", "size"), [(4, 1), (5, 2), (6, 2), (6, 3), (5, 3), (5, 4), (7, 2)])
def test_blocks_are_drawn_by_ordered_pivotal_sampling(count: int, size: int) -> None:
    assert drawn_exactly(count, size) == pivotal_by_steps([Fraction(size, count)] * count)


@pytest.mark.parametrize(("count", "size"), [(5, 2), (6, 3), (7, 3), (8, 5)])
def test_a_stratified_block_multiplies_capital_by_at_most_what_independent_draws_do(count: int, size: int) -> None:
    """The inequality that makes capital a supermartingale, on exact probabilities."""
    rng = np.random.default_rng(3)
    drawn = pivotal_by_steps([Fraction(size, count)] * count)
    for _ in range(200):
        factors = rng.uniform(0.01, 2, count) if rng.random() < 0.5 else np.where(rng.random(count) < 0.5, 1.8, 0.1)
        mean = sum(float(p) * float(np.prod(factors[list(chosen)])) for chosen, p in drawn.items())
        assert mean <= factors.mean() ** size * (1 + 1e-12)


def test_capital_is_a_supermartingale_over_two_blocks() -> None:
    """Every way to draw two blocks of 7 questions, their mean as the null hypothesis says."""
    first, second = drawn_exactly(7, 3), drawn_exactly(4, 2)
    rng = np.random.default_rng(0)
    bets = np.array([[0.2], [0.7]])
    for _ in range(5):
        right = rng.permutation([1.0, 1, 1, 1, 0, 0, 0])
        mean = np.zeros(2)
        for (one, p), (two, q) in itertools.product(first.items(), second.items()):
            rest = [place for place in range(7) if place not in one]
            ones = np.array([right[list(one)].sum(), right[[rest[i] for i in two]].sum()])
            scores = sequential._Scores(ones, 0 * ones, np.array([3, 2]) - ones, paired=False)
            mean += float(p * q) * np.exp(sequential._log_capital(scores, np.array(8.0), 7, bets))
        assert np.all(mean <= 1 + 1e-12)
        assert np.all(mean > 0.5)


def test_capital_equals_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    population, sizes, total, bets = 90, [10, 20, 15], 80, (0.1, 0.4)
    gaps = [rng.choice([-1, 0, 1], size, p=[0.1, 0.5, 0.4]) for size in sizes]
    plain = []
    capital = [1.0, 1.0]
    seen, asked = 0.0, 0
    for block in gaps:
        mean = (total / 2 - seen) / (population - asked)
        for place, bet in enumerate(bets):
            for gap in block:
                capital[place] *= 1 + bet / mean * ((gap + 1) / 2 - mean)
        seen, asked = seen + float(np.sum((block + 1) / 2)), asked + len(block)
        plain.append(np.log(np.mean(capital)))
    counts = (np.array([np.sum(block == value) for block in gaps], dtype=float) for value in (1, 0, -1))
    scores = sequential._Scores(*counts, paired=True)
    found = sequential._log_capital(scores, np.array(float(total)), population, np.array(bets)[:, None])
    assert found == pytest.approx(plain, rel=1e-12)


SUBJECTS = ["law"] * 120 + ["art"] * 37 + ["zoology"] * 203


def test_the_order_is_pinned() -> None:
    """A study that is continued with another version of numpy or of this project must ask the same questions."""
    blocks = question_blocks(SUBJECTS, seed=7)
    assert sorted(itertools.chain.from_iterable(blocks)) == list(range(360))
    assert [len(block) for block in blocks] == block_sizes(360, 3)
    assert blocks == question_blocks(SUBJECTS, seed=7) != question_blocks(SUBJECTS, seed=8)
    assert blocks[0][:8] + blocks[-1][-3:] == [141, 120, 128, 143, 121, 149, 69, 112, 271, 174, 289]


def test_every_block_gives_each_subject_its_share() -> None:
    for seed in range(20):
        left = {name: SUBJECTS.count(name) for name in SUBJECTS}
        for block in question_blocks(SUBJECTS, seed=seed, sizes=[30] * 12):
            share = {name: len(block) * count / sum(left.values()) for name, count in left.items()}
            for name in left:
                taken = sum(SUBJECTS[place] == name for place in block)
                assert abs(taken - share[name]) < 2
                left[name] -= taken


def test_every_question_is_equally_likely() -> None:
    asked = np.zeros(40)
    names = ["a"] * 7 + ["b"] * 20 + ["c"] * 13
    for seed in range(3000):
        blocks = question_blocks(names, seed=seed, sizes=[9, 7, 99])
        asked[blocks[1]] += 1
    assert np.abs(asked / 3000 - 7 / 40).max() < 4.5 * (7 / 40 * 33 / 40 / 3000) ** 0.5


def test_block_sizes() -> None:
    assert block_sizes(30) == [30]
    assert block_sizes(0) == []
    assert question_blocks([], seed=1) == []
    assert sum(block_sizes(14042, 57)) == 14042
    assert block_sizes(14042, 57)[0] == 114
    sizes = block_sizes(14042)
    assert sizes[0] == sequential.FIRST_BLOCK
    assert all(one <= other for one, other in itertools.pairwise(sizes[:-1]))


def answers(rng: np.random.Generator, chances: Sequence[float], size: int, alike: float = 0.6) -> Bools:
    """Right and wrong of models whose mistakes are correlated: models x questions."""
    shared, own = rng.random(size), rng.random((len(chances), size))
    level = np.where(rng.random((len(chances), size)) < alike, shared, own)
    return level < np.array(chances)[:, None]


def raced(
    rule: Rule,
    right: Bools,
    seed: int = 0,
    references: Mapping[str, str] | None = None,
    sizes: Sequence[int] | None = None,
) -> Race:
    """Run a race to its end; models are named m0, m1 and so on."""
    names = [f"m{place}" for place in range(len(right))]
    race = Race(rule, right.shape[1], names, references or {})
    for block in question_blocks(["x"] * right.shape[1], seed=seed, sizes=sizes):
        if race.racing:
            race.add({name: right[names.index(name), block] for name in race.racing})
    return race


def test_a_clear_winner_is_found_early() -> None:
    right = answers(np.random.default_rng(0), [0.5, 0.75, 0.3], 2000)
    verdict = raced(Rule("best", 95), right).verdict()
    assert verdict.decided
    assert verdict.by == "rule"
    assert verdict.leaders == ("m1",)
    assert verdict.asked < 400
    assert verdict.out["m2"][0] <= verdict.out["m0"][0] == verdict.asked
    assert verdict.out["m0"][1] == "m1"
    for place, name in enumerate(("m0", "m1", "m2")):
        found = verdict.estimates[name]
        assert found.low <= right[place].mean() <= found.high
        assert found.low <= found.value <= found.high
        assert found.right / found.asked == found.value


def test_equal_models_lead_together_and_all_questions_decide() -> None:
    right = answers(np.random.default_rng(1), [0.6, 0.6, 0.2], 400)
    right[1] = np.random.default_rng(2).permutation(right[0])
    race = raced(Rule("best", 95), right)
    verdict = race.verdict()
    assert verdict.leaders == ("m0", "m1")
    assert set(verdict.out) == {"m2"}
    assert (verdict.by, verdict.asked) == ("all questions", 400)
    right[1, np.flatnonzero(~right[1])[0]] = True  # one more right answer, at the end, by count
    verdict = raced(Rule("best", 95), right).verdict()
    assert (verdict.leaders, verdict.by) == (("m1",), "all questions")
    assert verdict.estimates["m1"].low == verdict.estimates["m1"].high == right[1].mean()


def test_a_lead_that_cannot_be_made_up_decides_without_chance() -> None:
    race = Race(Rule("best", 99.999999), 10, ["a", "b"])
    race.add({"a": [True] * 5, "b": [False] * 5})
    assert race.racing == ("a", "b")
    race.add({"a": [True], "b": [False]})
    assert race.verdict().leaders == ("a",)
    assert race.verdict().by == "rule"


def test_one_model_is_the_best_without_a_question() -> None:
    verdict = Race(Rule("best", 95), 100, ["only"]).verdict()
    assert (verdict.decided, verdict.leaders, verdict.asked) == (True, ("only",), 0)
    assert np.isnan(verdict.estimates["only"].value)
    assert (verdict.estimates["only"].low, verdict.estimates["only"].high) == (0, 1)


def test_the_bets_are_on_who_led_before_the_block() -> None:
    """A fund that chose its rival by looking into the block would not be valid."""
    race = Race(Rule("best", 99.9), 1000, ["a", "b", "c"])
    first = {"a": [True, False, False, False], "b": [True, True, False, False], "c": [False] * 4}
    start = race._funds[0].copy()
    race.add(first)
    race.add({"a": [True] * 4, "b": [True] * 3 + [False], "c": [False] * 3 + [True]})
    other = Race(Rule("best", 99.9), 1000, ["a", "b", "c"])
    other.add(first)
    other.add({"a": [True] * 4, "b": [True] * 3 + [False], "c": [True] * 4})  # c, who trailed, is better now
    assert race._funds[0] == pytest.approx(other._funds[0])  # against a, all is on b
    fractions, mean = race._grid[:, 0], (1000 - 5) / (2 * 996)  # b was one ahead of a
    expected = 3 * np.log1p(fractions * (0.5 / mean - 1)) + np.log1p(-fractions)
    block = np.log1p(fractions)  # first block: b won one question
    to_c = np.log1p(-fractions)  # and c lost one
    assert race._funds[0] - start == pytest.approx(expected + np.log((np.exp(block) + np.exp(to_c)) / 2))


def test_precision() -> None:
    right = answers(np.random.default_rng(3), [0.5, 0.97], 3000)
    verdict = raced(Rule("precision", 3), right).verdict()
    assert verdict.by == "rule"
    one, other = verdict.estimates["m0"], verdict.estimates["m1"]
    assert other.asked < one.asked < 2000
    for found, row in zip((one, other), right, strict=True):
        assert (found.high - found.low) / 2 <= 0.03
        assert found.low <= row.mean() <= found.high


def test_compare() -> None:
    right = answers(np.random.default_rng(4), [0.5, 0.5, 0.7], 3000, alike=0.95)
    verdict = raced(Rule("compare", 5), right).verdict()
    found = {(pair.first, pair.second): pair for pair in verdict.pairs}
    assert found["m0", "m1"].outcome == "within"
    assert -0.05 < found["m0", "m1"].low <= found["m0", "m1"].high < 0.05
    assert found["m0", "m2"].outcome == found["m1", "m2"].outcome == "differs"
    assert found["m0", "m2"].high < 0
    assert verdict.leaders == ("m2",)
    for (first, second), pair in found.items():
        truth = right[int(first[1])].mean() - right[int(second[1])].mean()
        assert pair.low <= truth <= pair.high


def test_lose() -> None:
    rng = np.random.default_rng(5)
    right = answers(rng, [0.7], 4000)
    right = np.concatenate([right, right, right, right])
    right[1] ^= rng.random(4000) < 0.02
    right[2] &= rng.random(4000) < 0.9
    references = {"m1": "m0", "m2": "m0"}
    race = raced(Rule("lose", 3), right, references=references)
    verdict = race.verdict()
    assert verdict.losing == {"m1": "holds", "m2": "loses"}
    assert verdict.out["m2"] == (verdict.estimates["m2"].asked, "m0")
    assert verdict.estimates["m0"].asked == max(verdict.estimates["m1"].asked, verdict.estimates["m2"].asked)
    assert verdict.estimates["m3"].asked == 0  # in no pair
    assert verdict.pairs[0].low > -0.03
    assert verdict.pairs[1].high < -0.03


@pytest.mark.parametrize(("lost", "outcome"), [(3, "holds"), (4, "loses")])
def test_a_loss_of_exactly_the_margin_holds(lost: int, outcome: str) -> None:
    right = np.ones((2, 300), dtype=bool)
    right[0, :lost] = False  # 1 % of 300 are 3 questions
    verdict = raced(Rule("lose", 1), right, references={"m0": "m1"}).verdict()
    assert verdict.losing == {"m0": outcome}
    assert verdict.by in ("rule", "all questions")


def test_limits_narrow_and_contain_what_is_known() -> None:
    right = answers(np.random.default_rng(6), [0.4, 0.6], 500)
    race = Race(Rule("compare", 0.1), 500, ["m0", "m1"])
    last = [(-1.0, 1.0), (0.0, 1.0), (0.0, 1.0)]
    for block in question_blocks(["x"] * 500, seed=3, sizes=[50] * 10):
        if not race.racing:
            break
        race.add({name: right[place, block] for place, name in enumerate(race.models)})
        verdict = race.verdict()
        found = [(verdict.pairs[0].low, verdict.pairs[0].high)]
        for one in verdict.estimates.values():
            assert one.right / 500 <= one.low <= one.high <= (one.right + 500 - one.asked) / 500
            found.append((one.low, one.high))
        assert all(new[0] >= old[0] and new[1] <= old[1] for new, old in zip(found, last, strict=True))
        last = found


@pytest.mark.parametrize("rule", [Rule("best", 95), Rule("precision", 4), Rule("compare", 8), Rule("lose", 4)])
def test_the_limits_of_a_model_that_left_stay(rule: Rule) -> None:
    """Also: a race that is restored by adding the blocks again is the same race."""
    right = answers(np.random.default_rng(8), [0.75, 0.65, 0.6, 0.2], 1500)
    references = {"m3": "m0", "m1": "m2"} if rule.kind == "lose" else {}
    names = ["m0", "m1", "m2", "m3"]
    race = Race(rule, 1500, names, references)
    added: list[dict[str, Bools]] = []
    kept: dict[str, sequential.Estimate] = {}
    for block in question_blocks(["x"] * 1500, seed=1):
        if not race.racing:
            break
        added.append({name: right[names.index(name), block] for name in race.racing})
        race.add(added[-1])
        again = Race(rule, 1500, names, references)
        for one in added:
            again.add(one)
        assert again.verdict() == race.verdict()
        assert again.racing == race.racing
        found = race.verdict().estimates
        assert all(found[name] == one for name, one in kept.items())
        kept = {name: one for name, one in found.items() if name not in race.racing}
    assert len({one.asked for one in found.values()}) > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rule("fast", 1), "allowed are precision"),  # type: ignore[arg-type]
        (lambda: Rule("best", 2), "confidence in percent"),
        (lambda: Rule("compare", 0), "percentage points"),
        (lambda: Rule("lose", 1, level=95), "level: 95"),
        (lambda: Race(Rule("best", 95), 10, ["a", "a"]), "different names"),
        (lambda: Race(Rule("best", 95), 10, []), "got none"),
        (lambda: Race(Rule("best", 95), 0, ["a"]), "at least one question"),
        (lambda: Race(Rule("lose", 1), 10, ["a", "b"]), "must not lose to"),
        (lambda: Race(Rule("lose", 1), 10, ["a", "b"], {"a": "c"}), "a and c must be two of a, b"),
        (lambda: Race(Rule("best", 95), 10, ["a", "b"]).add({"a": [True]}), "answers of a, b are due, got a"),
        (lambda: Race(Rule("best", 95), 10, ["a", "b"]).add({"a": [True], "b": [True, False]}), r"lengths \[1, 2\]"),
        (lambda: Race(Rule("best", 95), 1, ["a", "b"]).add({"a": [True] * 2, "b": [True] * 2}), "one list of 1 to 1"),
        (lambda: questions_needed(0.3, 0.2, 100, Rule("best", 95), 2), "as many discordant"),
    ],
)
def test_bad_input(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_macro_accuracy_names_subjects_without_questions() -> None:
    value, missing = macro_accuracy([True, False, True], ["a", "a", "b"], ["a", "b", "c", "c"])
    assert value == 0.75
    assert missing == ("c",)
    nothing, missing = macro_accuracy([], [], ["a"])
    assert np.isnan(nothing)
    assert missing == ("a",)


@pytest.mark.slow
def test_wrong_conclusions_are_rare() -> None:
    """Populations fixed at the worst place: ties for ``best``, the margin for ``lose``."""
    rng = np.random.default_rng(9)
    wrong = {"best": 0, "lose": 0, "accuracy": 0}
    for study in range(150):
        right = answers(rng, [0.6, 0.6], 200, alike=0.5)
        right[1] = rng.permutation(right[0])
        race = raced(Rule("best", 95), right, seed=study, sizes=[20] * 10)
        wrong["best"] += "m0" not in race.verdict().leaders
        estimates = race.verdict().estimates.values()
        wrong["accuracy"] += any(not one.low <= right[0].mean() <= one.high for one in estimates)
        lost = right.copy()
        lost[1, rng.choice(np.flatnonzero(right[1]), 11, replace=False)] = False  # 5.5 points
        race = raced(Rule("lose", 5), lost, seed=study, references={"m1": "m0"}, sizes=[20] * 10)
        wrong["lose"] += race.verdict().losing["m1"] == "holds"
    assert max(wrong.values()) <= 15  # P(more of 150 at 5 %) is below 1 %; for two intervals at 10 % about half
    assert wrong["best"] <= 14
    assert wrong["lose"] <= 14


@pytest.mark.parametrize(
    ("rule", "chances"),
    [
        (Rule("best", 95), (0.6, 0.5)),
        (Rule("compare", 6), (0.6, 0.5)),
        (Rule("lose", 5), (0.6, 0.6)),
        (Rule("precision", 3), (0.6, 0.6)),
    ],
)
def test_the_predicted_number_of_questions_is_typical(rule: Rule, chances: tuple[float, float]) -> None:
    right = answers(np.random.default_rng(10), chances, 3000)
    needed = [raced(rule, right, seed=seed, references={"m0": "m1"}).asked for seed in range(100, 131)]
    gap, discordant = float(right[0].mean() - right[1].mean()), float(np.mean(right[0] != right[1]))
    count = 1 if rule.kind == "lose" else 2
    found = questions_needed(gap, discordant, 3000, rule, count, accuracy=0.6)
    assert found == pytest.approx(float(np.median(needed)), rel=0.35)  # a block or two


def test_questions_needed_grow_with_what_is_asked() -> None:
    best = Rule("best", 95)
    found = [questions_needed(gap, 0.3, 14042, best, 3) for gap in (0.2, 0.1, 0.05, 0.02)]
    assert all(one is not None and other is not None and one < other for one, other in itertools.pairwise(found))
    assert questions_needed(0.0, 0.3, 2000, best, 3) is None
    assert questions_needed(0.3, 0.3, 20, best, 3) is None  # one block
    assert questions_needed(0.0, 0.3, 300, Rule("lose", 0.1), 1) is None
    many = questions_needed(0.05, 0.3, 14042, Rule("compare", 3), 6)
    few = questions_needed(0.05, 0.3, 14042, Rule("compare", 3), 2)
    assert many is not None
    assert few is not None
    assert few < many


def test_a_large_race_is_quick() -> None:
    right = answers(np.random.default_rng(11), list(np.linspace(0.5, 0.55, 12)), 14042)
    sizes = [234] * 60 + [2]
    start = time.process_time()
    race = raced(Rule("best", 95), right, sizes=sizes)
    race.verdict()
    assert time.process_time() - start < 2
