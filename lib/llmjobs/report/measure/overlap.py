"""The questions that all models miss, whether mistakes are more alike than chance, and every pair."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmjobs.report.measure.scores import OptionScores, option_scores
from llmjobs.report.study import TEXT_CODE, Benchmark, Bools, Floats, Ints, Study
from llmjobs.statistics.intervals import Interval, accuracy_interval
from llmjobs.statistics.overlap import (
    ErrorOverlap,
    SameWrong,
    SharedAnswer,
    all_wrong_excess,
    capa,
    error_overlap,
    expected_wrong_counts,
    majority,
    permuted_all_wrong,
    same_wrong,
    shared_answer,
    stratum_counts,
    upper_p,
)
from llmjobs.statistics.paired import (
    PairedDifference,
    clustered_difference,
    difference_from_counts,
    holm,
    paired_difference,
    simultaneous_level,
)

# The questions that all models miss, and whether their mistakes are more alike than chance.


@dataclass(frozen=True)
class PairOverlap:
    """The mistakes of two rows; ``capa_from`` says whether CAPA uses probabilities or letters.

    ``excess`` is how many more questions both miss than independence within subjects predicts, with its interval;
    ``p_holm`` is the test's p-value adjusted over the pairs.
    """

    first: int
    second: int
    errors: ErrorOverlap
    same: SameWrong
    capa: float
    capa_from: str
    excess: Interval
    p_holm: float


@dataclass(frozen=True)
class Overlap:
    """Mistakes of the distinct models (``rows``) on the questions that were scored for all of them (``columns``).

    ``missed_by`` counts questions by how many models miss them, ``expected`` what independence within subjects
    predicts; ``all_p`` is the permutation p-value of the last count and ``excess`` its difference from the expectation,
    with an interval. ``letter_expected`` and ``letter_p`` are for mistakes that are independent within each subject and
    right letter (models that prefer the same letters miss the same questions for that reason alone), ``nan`` for
    generated answers. ``all_missed`` are columns of the benchmark. ``best`` is the row with the most right answers on
    ``columns``, which are also used for the majority vote; ``guessers`` is the share of questions that at least one of
    the same number of blind guessers would have right.
    """

    benchmark: Benchmark
    rows: tuple[int, ...]
    columns: Ints
    pairs: tuple[PairOverlap, ...]
    missed_by: Ints
    expected: Floats
    all_p: float
    excess: Interval
    letter_expected: float
    letter_p: float
    all_missed: tuple[int, ...]
    all_same: int
    all_same_chance: float
    same_answer: SharedAnswer | None
    combinations: tuple[tuple[frozenset[int], int], ...]
    oracle: Interval
    majority: Interval
    best: int
    best_alone: Interval
    majority_gain: PairedDifference
    guessers: float


def distinct_rows(study: Study, benchmark: Benchmark) -> tuple[int, ...]:
    """One row for each model: unquantized before quantized, an accelerator before the CPU.

    The same weights on two devices or at two precisions miss the same questions by construction, and would look like
    models that agree.
    """
    device = {"cuda": 0, "mps": 1, "cpu": 2}
    best: dict[str, tuple[tuple[int, int, int], int]] = {}
    for row, place in enumerate(benchmark.rows):
        info = study.entries[place].info
        rank = (info.quantization not in ("", "none"), device.get(info.device, 3), row)
        if info.id not in best or rank < best[info.id][0]:
            best[info.id] = (rank, row)
    return tuple(sorted(row for _, row in best.values()))


def measure_overlap(study: Study, benchmark: Benchmark, *, pairs: bool = True) -> Overlap | None:
    """Return the overlap of mistakes; None without two distinct models and a common question.

    Without ``pairs``, compute only what concerns all models together.
    """
    rows = distinct_rows(study, benchmark)
    columns = np.flatnonzero(~np.isnan(benchmark.correct[list(rows)]).any(axis=0))
    if len(rows) < 2 or not len(columns):
        return None
    wrong: Bools = benchmark.correct[_grid(rows, columns)] < 0.5
    strata = benchmark.subject[columns]
    counts, sizes = stratum_counts(wrong, strata)
    missed = wrong.sum(axis=0)
    letter_expected, letter_p = _by_letter(benchmark, columns, wrong)
    total = int(np.sum(missed == len(rows)))
    places = columns[missed == len(rows)]
    answers = benchmark.answer[_grid(rows, places)]
    everyone = (answers >= 0).all(axis=0) & (answers == answers[0]).all(axis=0) if len(places) else np.zeros(0, bool)
    options = benchmark.options[places]
    usable = options > 1
    chance = float(np.mean((1.0 / (options[usable] - 1)) ** (len(rows) - 1))) if usable.any() else float("nan")
    scores = [option_scores(benchmark, row) for row in range(len(benchmark.rows))] if pairs else []
    every = [_pair(benchmark, a, b, scores) for a, b in itertools.combinations(rows, 2)] if pairs else []
    adjusted = holm([pair.errors.p for pair in every])
    best = int(np.argmin(wrong.sum(axis=1)))
    voted = _majority_right(benchmark, rows, columns)
    sets = Counter(frozenset(np.flatnonzero(column).tolist()) for column in wrong.T if column.any())
    return Overlap(
        benchmark=benchmark,
        rows=rows,
        columns=columns,
        pairs=tuple(replace(pair, p_holm=p) for pair, p in zip(every, adjusted, strict=True)),
        missed_by=np.bincount(missed, minlength=len(rows) + 1),
        expected=expected_wrong_counts(wrong, strata),
        all_p=upper_p(total, permuted_all_wrong(counts, sizes)),
        excess=all_wrong_excess(wrong, strata),
        letter_expected=letter_expected,
        letter_p=letter_p,
        all_missed=tuple(map(int, places)),
        all_same=int(np.sum(everyone[usable])) if len(places) else 0,
        all_same_chance=chance,
        same_answer=_same_answer(answers[:, usable], benchmark.gold_code[places][usable], options[usable]),
        combinations=tuple(sorted(sets.items(), key=lambda item: (-item[1], sorted(item[0])))),
        oracle=_share(missed < len(rows)),
        majority=_share(voted),
        best=rows[best],
        best_alone=_share(~wrong[best]),
        majority_gain=paired_difference(voted, ~wrong[best]),
        guessers=_guessers(benchmark.options[columns], len(rows)),
    )


def _by_letter(benchmark: Benchmark, columns: Ints, wrong: Bools) -> tuple[float, float]:
    gold = benchmark.gold_code[columns]
    if not (benchmark.options[columns] > 1).all() or not (gold < TEXT_CODE).all():
        return float("nan"), float("nan")
    strata = np.array(
        [f"{subject}\0{letter}" for subject, letter in zip(benchmark.subject[columns], gold, strict=True)]
    )
    counts, sizes = stratum_counts(wrong, strata)
    total = int(np.sum(wrong.all(axis=0)))
    expected = float(expected_wrong_counts(wrong, strata)[-1])
    return expected, upper_p(total, permuted_all_wrong(counts, sizes))


def _grid(rows: tuple[int, ...], columns: Ints) -> tuple[Ints, Ints]:
    return np.array(rows, dtype=np.int64)[:, None], np.asarray(columns, dtype=np.int64)[None, :]


def _share(right: Bools) -> Interval:
    return Interval(float(np.mean(right)), *accuracy_interval(int(np.sum(right)), len(right)))


def _majority_right(benchmark: Benchmark, rows: tuple[int, ...], columns: Ints) -> Bools:
    """Return whether the most frequent answer is right; if there are no answers, right and wrong are voted on."""
    correct = benchmark.correct[_grid(rows, columns)] > 0.5
    order = list(np.argsort(-correct.mean(axis=1), kind="stable"))
    answers = benchmark.answer[_grid(rows, columns)]
    if not (answers >= 0).any():
        votes = majority(correct.astype(int), order)
        return np.asarray(votes == 1)
    _, dense = np.unique(answers, return_inverse=True)
    dense = dense.reshape(answers.shape) - int((answers < 0).any())
    chosen = majority(dense, order)
    agrees = (dense == chosen) & (dense >= 0)
    return np.asarray((agrees & correct).any(axis=0))


def _same_answer(answers: Ints, gold: Ints, options: Ints) -> SharedAnswer | None:
    return shared_answer(np.where(answers < TEXT_CODE, answers, -1), gold, options) if len(gold) else None


def _guessers(options: Ints, models: int) -> float:
    """Share of questions that at least one of ``models`` blind guessers has right; 0 for generated answers."""
    missed = np.where(options > 1, 1 - 1 / np.maximum(options, 1), 1.0)
    return float(np.mean(1 - missed**models))


def _pair(benchmark: Benchmark, a: int, b: int, scores: Sequence[OptionScores | None]) -> PairOverlap:
    both = ~np.isnan(benchmark.correct[a]) & ~np.isnan(benchmark.correct[b])
    right = benchmark.correct[:, both] > 0.5
    errors = error_overlap(right[a], right[b], benchmark.subject[both])
    letters = both & (benchmark.options > 1)
    first, second = benchmark.answer[a][letters], benchmark.answer[b][letters]
    gold, options = benchmark.gold_code[letters], benchmark.options[letters]
    value, source = _capa(benchmark, a, b, letters, scores)
    excess = all_wrong_excess(~right[[a, b]], benchmark.subject[both])
    return PairOverlap(a, b, errors, same_wrong(first, second, gold, options), value, source, excess, 1.0)


def _capa(
    benchmark: Benchmark, a: int, b: int, letters: Bools, scores: Sequence[OptionScores | None]
) -> tuple[float, str]:
    gold = benchmark.gold_code
    first, second = scores[a], scores[b]
    if first is not None and second is not None and first.kind == second.kind:
        held = letters & first.held & second.held
        if held.any():
            return capa(first.probabilities[held], second.probabilities[held], gold[held]), "probabilities"
    answers = benchmark.answer[[a, b]]
    held = letters & (answers >= 0).all(axis=0) & (answers < TEXT_CODE).all(axis=0) & (gold < TEXT_CODE) & (gold >= 0)
    if not held.any():
        return float("nan"), ""
    width = int(max(answers[:, held].max(), gold[held].max(), benchmark.options[held].max() - 1)) + 1
    blank = np.where(np.arange(width)[None, :] < benchmark.options[held][:, None], 0.0, np.nan)
    one_hot = [np.where(np.arange(width)[None, :] == row[held][:, None], 1.0, blank) for row in answers]
    return capa(one_hot[0], one_hot[1], gold[held]), "letters"


# Pairs of models on the same questions: which differ, by how much, and which are in the leading group.

MODELS, SETTINGS = "models", "settings"


@dataclass(frozen=True)
class Pair:
    """Two rows of a benchmark, the better one first; ``p_holm`` is adjusted over the pairs of its ``family``.

    ``together`` is the difference's interval such that the intervals of the whole family hold together at 95 %
    (Bonferroni); ``changed`` counts the questions on which the two gave different answers, right or wrong.
    """

    first: int
    second: int
    result: PairedDifference
    clustered: tuple[float, float]
    p_holm: float
    changed: int
    family: str = MODELS
    together: tuple[float, float] = (-1.0, 1.0)

    @property
    def distinguishable(self) -> bool:
        """Whether the two can be told apart, both by the test after Holm's correction and by the interval.

        Near 5 % test and interval may disagree, because Holm's steps are less strict than the intervals. Then we claim
        no difference, so no sentence contradicts the interval beside it.
        """
        return self.p_holm < 0.05 and not self.together[0] <= 0 <= self.together[1]


def measure_pairs(study: Study, benchmark: Benchmark) -> list[Pair]:
    """Compare the pairs of both families on the questions that were scored for both rows, in the order of the rows."""
    found: list[Pair] = []
    stands = representatives(study, benchmark)
    own = list(stands.values())
    for family, candidates in (
        (MODELS, list(itertools.combinations(sorted(set(own)), 2))),
        (SETTINGS, [(row, first) for row, first in stands.items() if row != first]),
    ):
        pairs = list(_compared(benchmark, candidates, family))
        adjusted = holm([pair.result.p for pair in pairs])
        level = simultaneous_level(len(pairs))
        for pair, p in zip(pairs, adjusted, strict=True):
            result = pair.result
            wide = difference_from_counts(result.only_first, result.only_second, result.n, level)
            found.append(replace(pair, p_holm=p, together=(wide.low, wide.high)))
    return found


def representatives(study: Study, benchmark: Benchmark) -> dict[int, int]:
    """Return, for every row, the row that represents the same model at the same precision.

    A row on an accelerator is preferred to one on the CPU, then the first one. Another revision counts as another
    model; an unrecorded one counts as the recorded one if there is only one.
    """
    device = {"cuda": 0, "mps": 1, "cpu": 2}
    infos = [study.entries[place].info for place in benchmark.rows]
    known: dict[str, set[str]] = {}
    for info in infos:
        known.setdefault(info.id, set()).update({info.revision} - {""})
    groups: dict[tuple[str, str, str], list[int]] = {}
    for row, info in enumerate(infos):
        only = next(iter(known[info.id])) if len(known[info.id]) == 1 else ""
        groups.setdefault((info.id, info.revision or only, info.quantization or "none"), []).append(row)
    stands: dict[int, int] = {}
    for rows in groups.values():
        first = min(rows, key=lambda row: (device.get(infos[row].device, 3), row))
        stands |= dict.fromkeys(rows, first)
    return dict(sorted(stands.items()))


def _compared(benchmark: Benchmark, candidates: Sequence[tuple[int, int]], family: str) -> Iterator[Pair]:
    scored = ~np.isnan(benchmark.correct)
    for a, b in candidates:
        both = scored[a] & scored[b]
        if not both.any():
            continue
        x, y = benchmark.correct[a][both] > 0.5, benchmark.correct[b][both] > 0.5
        first, second = (a, b) if (x.sum(), -a) >= (y.sum(), -b) else (b, a)
        if first == b:
            x, y = y, x
        changed = int(np.sum(benchmark.answer[a][both] != benchmark.answer[b][both]))
        clustered = clustered_difference(x, y, benchmark.subject[both])
        yield Pair(first, second, paired_difference(x, y), clustered, 1.0, changed, family)


def leading_group(pairs: Sequence[Pair], best: int) -> list[int]:
    """Return the rows that cannot be told apart from the row ``best``, itself first.

    With 95 % confidence the truly best model is among them: it is only left out if one of the family's comparisons
    errs.
    """
    others = [p.second if p.first == best else p.first for p in pairs if best in (p.first, p.second)
              and p.family == MODELS and not p.distinguishable]  # fmt: skip
    return [best, *others]
