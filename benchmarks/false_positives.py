"""Simulates how often the tests of the report err and its intervals hold: ``python benchmarks/false_positives.py``.

Every figure is the share of simulated studies in which a test rejects at 5 % although there is nothing to find, or in
which an interval holds the true value. It takes about ten minutes of one core, writes ``false_positives.json`` beside
itself, and the same ``--seed`` gives the same file; ``docs/make_statistics.py`` puts it into the documentation.

Studies have 400 questions in 8 subjects. *Independent*: questions differ in difficulty, subjects in their mean, and
nothing else hangs together. *Clustered*: in addition each model has a strength of its own in every ten questions (a
passage, a topic), so that ten neighbours err together.
"""

import argparse
import itertools
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from llmjobs.mtbench import agreement, scores
from llmjobs.mtbench.fastchat import Compared, Judged
from llmjobs.statistics import intervals, overlap, paired, patterns

FILE = Path(__file__).with_suffix(".json")
MODELS = (2, 3, 6)
QUESTIONS, SUBJECTS, CLUSTER = 400, 8, 10
SUBJECT = np.repeat(np.arange(SUBJECTS), QUESTIONS // SUBJECTS)
CLUSTERS = np.repeat(np.arange(QUESTIONS // CLUSTER), CLUSTER)
CONVERSATIONS, ASKED = 12, 4
RATED = 80
Bools = NDArray[np.bool_]
Rng = np.random.Generator
Trial = Callable[[Rng, int, bool], bool | None]
"""One simulated study: random numbers, models, clustered or not → whether the test rejects or the interval holds."""
TESTS: list[tuple[str, int, Trial]] = []
INTERVALS: list[tuple[str, int, Trial]] = []


def test_of(name: str, studies: int) -> Callable[[Trial], Trial]:
    """Register a test that has nothing to find."""
    return lambda trial: (TESTS.append((name, studies, trial)), trial)[1]


def interval_of(name: str, studies: int) -> Callable[[Trial], Trial]:
    """Register an interval whose true value is known."""
    return lambda trial: (INTERVALS.append((name, studies, trial)), trial)[1]


def answers(
    rng: Rng, models: int, clustered: bool, *, shared: float = 1.0, lift: NDArray[np.float64] | None = None
) -> tuple[Bools, NDArray[np.float64]]:
    """Right and wrong (models × questions) and the chances behind them; ``shared`` is the spread of difficulty.

    With ``shared`` 0 mistakes are independent within a subject; all models are equally good without ``lift``.
    """
    level = np.linspace(-0.5, 0.9, SUBJECTS)[SUBJECT] + shared * rng.normal(0, 1, QUESTIONS)
    own = np.zeros((models, QUESTIONS)) if lift is None else np.tile(lift[:, None], QUESTIONS)
    if clustered:
        own = own + rng.normal(0, 0.7, (models, QUESTIONS // CLUSTER))[:, CLUSTERS]
    chances = stats.norm.cdf(level + own)
    return rng.random((models, QUESTIONS)) < chances, chances


def letters(rng: Rng, right: Bools, gold: NDArray[np.int64], habit: NDArray[np.float64]) -> NDArray[np.int64]:
    """Answers among four options: gold where right, else a letter that the model likes, whatever the question."""
    chosen = np.empty(right.shape, dtype=np.int64)
    for row, taste in enumerate(habit):
        drawn = np.array([taste * (np.arange(4) != letter) for letter in range(4)])
        drawn /= drawn.sum(axis=1, keepdims=True)
        wrong = (rng.random(QUESTIONS)[:, None] > np.cumsum(drawn[gold], axis=1)).sum(axis=1)
        chosen[row] = np.where(right[row], gold, np.minimum(wrong, 3))
    return chosen


def pairs(right: Bools) -> Iterator[tuple[Bools, Bools]]:
    """All pairs of rows."""
    return itertools.combinations(right, 2)


@test_of("any two models told apart (McNemar, Holm)", 4000)
def mcnemar(rng: Rng, models: int, clustered: bool) -> bool:
    right, _ = answers(rng, models, clustered)
    return min(paired.holm([paired.paired_difference(a, b).p for a, b in pairs(right)])) < 0.05


@test_of("any two models told apart, as the report says it (and the joint interval leaves out 0)", 4000)
def told_apart(rng: Rng, models: int, clustered: bool) -> bool:
    right, _ = answers(rng, models, clustered)
    found = [paired.paired_difference(a, b) for a, b in pairs(right)]
    level = paired.simultaneous_level(len(found))
    wide = [paired.difference_from_counts(one.only_first, one.only_second, one.n, level) for one in found]
    adjusted = paired.holm([one.p for one in found])
    return any(p < 0.05 and not one.low <= 0 <= one.high for p, one in zip(adjusted, wide, strict=True))


@test_of("any two models told apart, clusters known (sign flips of clusters, Holm)", 2000)
def flips(rng: Rng, models: int, clustered: bool) -> bool:
    right, _ = answers(rng, models, clustered)
    return min(paired.holm([paired.clustered_comparison(a, b, CLUSTERS).p for a, b in pairs(right)])) < 0.05


@test_of("history on and off, 12 conversations of 4 questions (McNemar)", 4000)
def conversations_mcnemar(rng: Rng, models: int, clustered: bool) -> bool | None:
    if models > 2:
        return None
    first, second, _ = conversations(rng, clustered)
    return paired.paired_difference(first, second).p < 0.05


@test_of("history on and off, 12 conversations of 4 questions (sign flips of conversations)", 4000)
def conversations_flips(rng: Rng, models: int, clustered: bool) -> bool | None:
    if models > 2:
        return None
    first, second, clusters = conversations(rng, clustered)
    return paired.clustered_comparison(first, second, clusters).p < 0.05


def conversations(rng: Rng, clustered: bool, gap: float = 0.0) -> tuple[Bools, Bools, NDArray[np.int64]]:
    """Right and wrong of two memories; clustered, each has luck of its own in every conversation."""
    clusters = np.repeat(np.arange(CONVERSATIONS), ASKED)
    luck = rng.normal(0, 1.2, (2, CONVERSATIONS))[:, clusters] if clustered else np.zeros((2, len(clusters)))
    level = np.array([gap, 0.0])[:, None] + 0.3
    right = rng.random((2, len(clusters))) < stats.norm.cdf(level + luck)
    return right[0], right[1], clusters


@test_of("two models share mistakes (exact, Holm over the pairs)", 2000)
def shared_pairs(rng: Rng, models: int, clustered: bool) -> bool:
    wrong = ~answers(rng, models, clustered, shared=0)[0]
    counts, sizes = overlap.stratum_counts(wrong, SUBJECT)
    found = [
        overlap.shared_wrong_p(counts[a], counts[b], sizes, int(np.sum(wrong[a] & wrong[b])))
        for a, b in itertools.combinations(range(models), 2)
    ]
    return min(paired.holm(found)) < 0.05


@test_of("all models miss the same questions (permutation)", 2000)
def shared_all(rng: Rng, models: int, clustered: bool) -> bool:
    wrong = ~answers(rng, models, clustered, shared=0)[0]
    counts, sizes = overlap.stratum_counts(wrong, SUBJECT)
    drawn = overlap.permuted_all_wrong(counts, sizes, 1000, int(rng.integers(2**31)))
    return overlap.upper_p(int(wrong.all(axis=0).sum()), drawn) < 0.05


@test_of("same wrong answer of two models (Hoeffding's variance, Holm over the pairs)", 2000)
def same_wrong(rng: Rng, models: int, clustered: bool) -> bool:
    chosen, gold = lettered(rng, models, clustered)
    options = np.full(QUESTIONS, 4)
    return min(paired.holm([overlap.same_wrong(a, b, gold, options).p for a, b in pairs(chosen)])) < 0.05


@test_of("same wrong answer of all models (permutation)", 600)
def same_answer(rng: Rng, models: int, clustered: bool) -> bool | None:
    found = shared_letters(rng, models, clustered)
    return None if found is None else found.p < 0.05 and found.excess.low > 0


def lettered(rng: Rng, models: int, clustered: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Letters of models that share difficulty and have tastes of their own, and the gold letters."""
    right, _ = answers(rng, models, clustered)
    gold = rng.integers(0, 4, QUESTIONS)
    return letters(rng, right, gold, rng.dirichlet(np.full(4, 4.0), models)), gold


def shared_letters(rng: Rng, models: int, clustered: bool) -> overlap.SharedAnswer | None:
    """The statistic of the same wrong answers on what all models miss."""
    chosen, gold = lettered(rng, models, clustered)
    missed = (chosen != gold).all(axis=0)
    if missed.sum() < 10:
        return None
    return overlap.shared_answer(
        chosen[:, missed], gold[missed], np.full(int(missed.sum()), 4), draws=200, seed=int(rng.integers(2**31))
    )


@test_of("any pattern in one model's mistakes (4 tests, Holm)", 1000)
def any_pattern(rng: Rng, models: int, clustered: bool) -> bool | None:
    if models > 2:
        return None
    chances = np.full(QUESTIONS, 0.6)
    if clustered:
        chances = stats.norm.cdf(0.3 + rng.normal(0, 0.7, QUESTIONS // CLUSTER)[CLUSTERS])
    right = rng.random(QUESTIONS) < chances
    gold = rng.integers(0, 4, QUESTIONS)
    chosen = letters(rng, right[None], gold, np.full((1, 4), 0.25))[0]
    seed = int(rng.integers(2**31))
    found = [
        patterns.group_differences(right, SUBJECT, draws=1000, seed=seed).p,
        patterns.letter_preference(chosen, gold, 4)[2].p,
        patterns.position_dependence(right, gold, draws=1000, seed=seed).p,
        patterns.length_dependence(right, rng.integers(20, 400, QUESTIONS), SUBJECT).p,
    ]
    return min(paired.holm(found)) < 0.05


@test_of("subjects differ, averaged over the models (F by permutation)", 2000)
def subjects(rng: Rng, models: int, clustered: bool) -> bool:
    level = rng.normal(0, 1, QUESTIONS)
    own = rng.normal(0, 0.7, (models, QUESTIONS // CLUSTER))[:, CLUSTERS] if clustered else 0.0
    right = rng.random((models, QUESTIONS)) < stats.norm.cdf(level + own)
    found = patterns.mean_differences(right.mean(axis=0), SUBJECT, draws=400, seed=int(rng.integers(2**31)))
    return found.p < 0.05


@test_of("any guesser above blind guessing (exact binomial, Holm over the models)", 4000)
def above_chance(rng: Rng, models: int, clustered: bool) -> bool | None:
    right = rng.binomial(QUESTIONS, 0.25, models)
    found = [patterns.above_chance(int(k), QUESTIONS, 0.25) for k in right]
    return None if clustered else min(paired.holm(found)) < 0.05


@test_of("one letter says all (accuracy above the letters dealt at random)", 2000)
def beyond_letters(rng: Rng, models: int, clustered: bool) -> bool | None:
    if models > 2 or clustered:
        return None
    gold, chosen = rng.integers(0, 4, QUESTIONS), rng.choice(4, QUESTIONS, p=[0.1, 0.7, 0.1, 0.1])
    return patterns.letters_alone(chosen, gold, 4)[1] < 0.05


def ratings(rng: Rng, models: int, clustered: bool, ability: NDArray[np.float64] | None = None) -> list[Judged]:
    """80 questions of two turns; clustered, an agent's two turns share its luck with the question."""
    hard = rng.normal(0, 1, (1, RATED, 1))
    luck = rng.normal(0, 1.5, (models, RATED, 1)) if clustered else 0.0
    noise = rng.normal(0, 1.2, (models, RATED, 2))
    level = np.zeros(models) if ability is None else ability
    values = np.clip(np.rint(7 + level[:, None, None] + hard + luck + noise), 1, 10)
    return [
        Judged("j", "p", f"m{model}", str(question), turn + 1, float(values[model, question, turn]))
        for model in range(models) for question in range(RATED) for turn in range(2)
    ]  # fmt: skip


@test_of("MT-Bench: any two agents told apart (sign flips of questions, Holm, joint interval)", 2000)
def agents(rng: Rng, models: int, clustered: bool) -> bool:
    found = scores.differences(ratings(rng, models, clustered))
    return any(row["p_holm"] < 0.05 and not row["low"] <= 0 <= row["high"] for row in found)


def lengths(rng: Rng, judged: list[Judged], clustered: bool) -> dict[tuple[str, str, int], int]:
    """Lengths that have nothing to do with ratings; clustered, an agent is as long-winded in both turns."""
    wordy = {(one.model, one.question_id): rng.normal(0, 0.6) for one in judged}
    return {
        (one.model, one.question_id, one.turn): int(
            900 * np.exp((wordy[one.model, one.question_id] if clustered else 0.0) + rng.normal(0, 0.5))
        )
        for one in judged
    }


@test_of("MT-Bench: length and rating (Spearman over answers, as before)", 2000)
def length_spearman(rng: Rng, models: int, clustered: bool) -> bool:
    judged = ratings(rng, models, clustered)
    known = lengths(rng, judged, clustered)
    table = np.array([[one.rating or 0.0, np.log(known[one.model, one.question_id, one.turn])] for one in judged])
    table = table.reshape(models, RATED * 2, 2)
    centred = (table - table.mean(axis=0)).reshape(-1, 2)
    return float(stats.spearmanr(centred[:, 0], centred[:, 1]).pvalue) < 0.05


@test_of("MT-Bench: length and rating (permutation within questions)", 2000)
def length_permuted(rng: Rng, models: int, clustered: bool) -> bool:
    judged = ratings(rng, models, clustered)
    known = lengths(rng, judged, clustered)
    return agreement.length_bias(judged, [], known, permutations=500)["p"] < 0.05


@test_of("MT-Bench: order of the answers (sign flips of questions)", 1000)
def order(rng: Rng, models: int, clustered: bool) -> bool:
    lean = rng.random(RATED) < 0.5
    found = []
    for question in range(RATED):
        for first, second in itertools.combinations(range(models), 2):
            for turn in (1, 2):
                if rng.random() < 0.7:
                    continue
                side = lean[question] if clustered and rng.random() < 0.8 else rng.random() < 0.5
                both = ("first", "second") if side else ("second", "first")
                found.append(Compared("j", "p", f"m{first}", f"m{second}", str(question), turn, "tie", True, both))
    return bool(found) and agreement.position_bias(found)["p"] < 0.05


def holds(ends: tuple[float, float] | intervals.Interval, truth: float) -> bool:
    """Whether the last two numbers of ``ends`` enclose the truth."""
    low, high = ends[-2:]
    return bool(low <= truth <= high)


@interval_of("accuracy (Wilson)", 4000)
def wilson(rng: Rng, models: int, clustered: bool) -> bool | None:
    if models > 2:
        return None
    chances = np.full(QUESTIONS, 0.65)
    if clustered:
        chances = stats.norm.cdf(0.3 + rng.normal(0, 0.7, QUESTIONS // CLUSTER)[CLUSTERS])
    truth = 0.65 if not clustered else float(stats.norm.cdf(0.3 / (1 + 0.7**2) ** 0.5))
    return holds(intervals.wilson(int((rng.random(QUESTIONS) < chances).sum()), QUESTIONS), truth)


@interval_of("accuracy, clusters known (cluster-robust, t)", 4000)
def clustered_accuracy(rng: Rng, models: int, clustered: bool) -> bool | None:
    if models > 2:
        return None
    luck = rng.normal(0, 0.7, QUESTIONS // CLUSTER)[CLUSTERS] if clustered else 0.0
    truth = float(stats.norm.cdf(0.3 / (1 + 0.7**2) ** 0.5)) if clustered else float(stats.norm.cdf(0.3))
    return holds(intervals.clustered_interval(rng.random(QUESTIONS) < stats.norm.cdf(0.3 + luck), CLUSTERS), truth)


@interval_of("macro accuracy (stratified)", 4000)
def macro(rng: Rng, models: int, clustered: bool) -> bool | None:
    if models > 2 or clustered:
        return None
    chances = np.linspace(0.3, 0.95, SUBJECTS)
    return holds(intervals.macro_interval(rng.random(QUESTIONS) < chances[SUBJECT], SUBJECT), float(chances.mean()))


ABILITY = np.array([0.5, 0.35, 0.3, 0.1, 0.0, -0.3])


def true_accuracies(models: int, clustered: bool) -> NDArray[np.float64]:
    """Expected accuracies of the models of :data:`ABILITY`."""
    spread = (1 + 1.0 + (0.7**2 if clustered else 0.0)) ** 0.5
    level = np.linspace(-0.5, 0.9, SUBJECTS)
    return np.array([float(stats.norm.cdf((level + lift) / spread).mean()) for lift in ABILITY[:models]])


@interval_of("differences of all pairs together (Bonett and Price, Bonferroni)", 3000)
def together(rng: Rng, models: int, clustered: bool) -> bool:
    right, _ = answers(rng, models, clustered, lift=ABILITY[:models])
    truth = true_accuracies(models, clustered)
    places = list(itertools.combinations(range(models), 2))
    level = paired.simultaneous_level(len(places))
    found = [paired.paired_difference(right[a], right[b], level) for a, b in places]
    return all(holds((one.low, one.high), truth[a] - truth[b]) for one, (a, b) in zip(found, places, strict=True))


@interval_of("difference of two models, clusters known (the wider of cluster-robust and Bonett and Price)", 3000)
def clustered_gap(rng: Rng, models: int, clustered: bool) -> bool | None:
    if models > 2:
        return None
    right, _ = answers(rng, models, clustered, lift=ABILITY[:2])
    truth = true_accuracies(2, clustered)
    found = paired.clustered_comparison(right[0], right[1], CLUSTERS)
    return holds((found.low, found.high), truth[0] - truth[1])


@interval_of("history on less off, 12 conversations of 4 questions", 3000)
def conversation_gap(rng: Rng, models: int, clustered: bool) -> bool | None:
    if models > 2:
        return None
    first, second, clusters = conversations(rng, clustered, gap=1.0)
    spread = (1 + 1.2**2) ** 0.5 if clustered else 1.0
    truth = float(stats.norm.cdf(1.3 / spread) - stats.norm.cdf(0.3 / spread))
    found = paired.clustered_comparison(first, second, clusters)
    return holds((found.low, found.high), truth)


@interval_of("excess of questions that all miss over independence (delta method)", 2000)
def excess(rng: Rng, models: int, clustered: bool) -> bool | None:
    if clustered:
        return None
    right, _ = answers(rng, models, clustered)
    return holds(overlap.all_wrong_excess(~right, SUBJECT), _true_excess(models))


_EXCESS: dict[int, float] = {}


def _true_excess(models: int) -> float:
    """By numerical integration over difficulty, subject by subject."""
    if models not in _EXCESS:
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        weights = weights / weights.sum()
        total = 0.0
        for level in np.linspace(-0.5, 0.9, SUBJECTS):
            missed = 1 - stats.norm.cdf(level + nodes)
            total += float(weights @ missed**models - (weights @ missed) ** models) * QUESTIONS / SUBJECTS
        _EXCESS[models] = total
    return _EXCESS[models]


@interval_of("same wrong answer less letter habits (jackknife)", 600)
def same_answer_excess(rng: Rng, models: int, clustered: bool) -> bool | None:
    found = shared_letters(rng, models, clustered)
    return None if found is None else holds(found.excess, 0.0)


@interval_of("letters chosen less right, all letters together", 2000)
def gaps(rng: Rng, models: int, clustered: bool) -> bool | None:
    if models > 2 or clustered:
        return None
    gold = rng.integers(0, 4, QUESTIONS)
    chosen = np.where(rng.random(QUESTIONS) < 0.5, gold, rng.choice(4, QUESTIONS, p=[0.4, 0.3, 0.2, 0.1]))
    truth = 0.5 * (np.array([0.4, 0.3, 0.2, 0.1]) - 0.25)
    return all(holds(one, float(x)) for one, x in zip(patterns.letter_gaps(chosen, gold, 4), truth, strict=True))


@interval_of("spread between subjects (noncentral χ²)", 1000)
def spread(rng: Rng, models: int, clustered: bool) -> bool | None:
    if models > 2 or clustered:
        return None
    chances = np.linspace(0.45, 0.75, SUBJECTS)
    found = patterns.group_differences(rng.random(QUESTIONS) < chances[SUBJECT], SUBJECT, draws=10).size
    return found is not None and holds(found, float(chances.std()))


@interval_of("area under the curve of length (DeLong)", 2000)
def area(rng: Rng, models: int, clustered: bool) -> bool | None:
    if models > 2 or clustered:
        return None
    right = rng.random(QUESTIONS) < 0.6
    found = patterns.area_interval(rng.normal(0, 1, QUESTIONS) + 0.3 * right, right)
    return holds(found, float(stats.norm.cdf(0.3 / 2**0.5)))


@interval_of("MT-Bench: mean of 80 questions (cluster-robust, t)", 2000)
def mean_of_all(rng: Rng, models: int, clustered: bool) -> bool | None:
    return None if models > 2 else holds(intervals.clustered_interval(*rated(rng, clustered, RATED)), 5.5)


@interval_of("MT-Bench: mean of a category of 10 questions (cluster-robust, t)", 2000)
def mean_of_category(rng: Rng, models: int, clustered: bool) -> bool | None:
    return None if models > 2 else holds(intervals.clustered_interval(*rated(rng, clustered, 10)), 5.5)


@interval_of("MT-Bench: mean of a category of 10 questions (percentile bootstrap, as before)", 1000)
def mean_bootstrapped(rng: Rng, models: int, clustered: bool) -> bool | None:
    if models > 2:
        return None
    values, clusters = rated(rng, clustered, 10)
    return holds(bootstrap_mean(values, clusters, int(rng.integers(2**31))), 5.5)


def bootstrap_mean(values: NDArray[np.float64], clusters: NDArray[np.int64], seed: int) -> intervals.Interval:
    """Mean with a percentile bootstrap interval over 1,000 draws of whole clusters.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    sums, sizes = intervals.group_sums(values, clusters)
    picks = np.random.default_rng(seed).integers(0, len(sums), size=(1000, len(sums)))
    low, high = np.quantile(sums[picks].sum(axis=1) / sizes[picks].sum(axis=1), [0.025, 0.975])
    return intervals.Interval(float(values.mean()), float(low), float(high))


def rated(rng: Rng, clustered: bool, questions: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Ratings around 5.5 of two turns a question, and their questions."""
    luck = rng.normal(0, 1.5 if clustered else 0.0, (questions, 1))
    values = np.clip(np.rint(5.5 + luck + rng.normal(0, 1.5, (questions, 2))), 1, 10)
    return values.ravel(), np.repeat(np.arange(questions), 2)


def rates(trials: list[tuple[str, int, Trial]], seed: int, scale: float, only: str) -> list[dict[str, object]]:
    """Run every trial for each number of models, independent and clustered."""
    rows: list[dict[str, object]] = []
    for name, studies, trial in trials:
        if only not in name:
            continue
        row: dict[str, object] = {"name": name, "studies": max(20, round(studies * scale))}
        for clustered in (False, True):
            for models in MODELS:
                rng = np.random.default_rng([seed, models, clustered, zlib.crc32(name.encode())])
                found = [trial(rng, models, clustered) for _ in range(int(str(row["studies"])))]
                kept = [bool(one) for one in found if one is not None]
                key = f"{'clustered' if clustered else 'independent'} {models}"
                row[key] = round(float(np.mean(kept)), 4) if len(kept) >= len(found) / 2 else None
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    """Simulate everything and write the file."""
    parser = argparse.ArgumentParser(description="Simulated false positive rates and coverage")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=0.3, help="1: three times as many studies (default 0.3)")
    parser.add_argument("--only", default="", help="only tests and intervals whose name contains this; writes no file")
    chosen = parser.parse_args()
    found = {
        "seed": chosen.seed,
        "tests": rates(TESTS, chosen.seed, chosen.scale, chosen.only),
        "intervals": rates(INTERVALS, chosen.seed, chosen.scale, chosen.only),
    }
    if not chosen.only:
        FILE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
