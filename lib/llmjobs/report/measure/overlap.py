"""The questions that all models miss, and whether their mistakes are alike beyond chance."""

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np

from llmjobs.report.study import TEXT_CODE, Benchmark, Bools, Floats, Ints, Study
from llmjobs.statistics.calibration import option_probabilities
from llmjobs.statistics.intervals import Interval, wilson
from llmjobs.statistics.overlap import (
    ErrorOverlap,
    SameWrong,
    capa,
    error_overlap,
    expected_wrong_counts,
    majority,
    permuted_all_wrong,
    same_wrong,
    stratum_counts,
    upper_p,
)

PAIR_DRAWS = 2_000
ALL_DRAWS = 10_000


@dataclass(frozen=True)
class PairOverlap:
    """The mistakes of two rows; ``capa_from`` says whether CAPA is from probabilities or letters."""

    first: int
    second: int
    errors: ErrorOverlap
    same: SameWrong
    capa: float
    capa_from: str


@dataclass(frozen=True)
class Overlap:
    """Mistakes of the distinct models (``rows``) on the questions that all of them scored (``columns``).

    ``missed_by`` counts questions by how many models miss them, ``expected`` what independence within
    subjects gives; ``all_p`` is the permutation p-value of the last count. ``all_missed`` are columns of
    the benchmark.
    """

    benchmark: Benchmark
    rows: tuple[int, ...]
    columns: Ints
    pairs: tuple[PairOverlap, ...]
    missed_by: Ints
    expected: Floats
    all_p: float
    all_missed: tuple[int, ...]
    all_same: int
    all_same_chance: float
    all_pair_share: float
    all_pair_chance: float
    combinations: tuple[tuple[frozenset[int], int], ...]
    oracle: Interval
    majority: Interval


def distinct_rows(study: Study, benchmark: Benchmark) -> tuple[int, ...]:
    """One row for each model: unquantized before quantized, an accelerator before the CPU.

    The same weights on two devices or at two precisions miss the same questions by construction, and
    would pass for models that agree.
    """
    device = {"cuda": 0, "mps": 1, "cpu": 2}
    best: dict[str, tuple[tuple[int, int, int], int]] = {}
    for row, place in enumerate(benchmark.rows):
        info = study.entries[place].info
        rank = (info.quantization not in ("", "none"), device.get(info.device, 3), row)
        if info.id not in best or rank < best[info.id][0]:
            best[info.id] = (rank, row)
    return tuple(sorted(row for _, row in best.values()))


def measure_overlap(study: Study, benchmark: Benchmark) -> Overlap | None:
    """Return the overlap of mistakes, or None without two distinct models and a common question."""
    rows = distinct_rows(study, benchmark)
    columns = np.flatnonzero(~np.isnan(benchmark.correct[list(rows)]).any(axis=0))
    if len(rows) < 2 or not len(columns):
        return None
    wrong: Bools = benchmark.correct[_grid(rows, columns)] < 0.5
    strata = benchmark.subject[columns]
    counts, sizes = stratum_counts(wrong, strata)
    missed = wrong.sum(axis=0)
    total = int(np.sum(missed == len(rows)))
    places = columns[missed == len(rows)]
    answers = benchmark.answer[_grid(rows, places)]
    pair_share, pair_chance = _agreement(answers, benchmark.options[places])
    everyone = (answers >= 0).all(axis=0) & (answers == answers[0]).all(axis=0) if len(places) else np.zeros(0, bool)
    options = benchmark.options[places]
    usable = options > 1
    chance = float(np.mean((1.0 / (options[usable] - 1)) ** (len(rows) - 1))) if usable.any() else float("nan")
    sets = Counter(frozenset(np.flatnonzero(column).tolist()) for column in wrong.T if column.any())
    return Overlap(
        benchmark=benchmark,
        rows=rows,
        columns=columns,
        pairs=tuple(_pair(benchmark, a, b) for a, b in itertools.combinations(rows, 2)),
        missed_by=np.bincount(missed, minlength=len(rows) + 1),
        expected=expected_wrong_counts(wrong, strata),
        all_p=upper_p(total, permuted_all_wrong(counts, sizes, ALL_DRAWS)),
        all_missed=tuple(map(int, places)),
        all_same=int(np.sum(everyone[usable])) if len(places) else 0,
        all_same_chance=chance,
        all_pair_share=pair_share,
        all_pair_chance=pair_chance,
        combinations=tuple(sorted(sets.items(), key=lambda item: (-item[1], sorted(item[0])))),
        oracle=_share(missed < len(rows)),
        majority=_share(_majority_right(benchmark, rows, columns)),
    )


def _grid(rows: tuple[int, ...], columns: Ints) -> tuple[Ints, Ints]:
    return np.array(rows, dtype=np.int64)[:, None], np.asarray(columns, dtype=np.int64)[None, :]


def _share(right: Bools) -> Interval:
    return Interval(float(np.mean(right)), *wilson(int(np.sum(right)), len(right)))


def _majority_right(benchmark: Benchmark, rows: tuple[int, ...], columns: Ints) -> Bools:
    """Return whether the most frequent answer is right; without answers, right and wrong are voted on."""
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


def _agreement(answers: Ints, options: Ints) -> tuple[float, float]:
    """Mean share of the same wrong answer over the pairs of models, and what equal chances would give."""
    usable = options > 1
    answers, options = answers[:, usable], options[usable]
    same = read = 0
    for a, b in itertools.combinations(range(len(answers)), 2):
        both = (answers[a] >= 0) & (answers[b] >= 0)
        same, read = same + int(np.sum(both & (answers[a] == answers[b]))), read + int(both.sum())
    if not read:
        return float("nan"), float("nan")
    return same / read, float(np.mean(1.0 / (options - 1)))


def _pair(benchmark: Benchmark, a: int, b: int) -> PairOverlap:
    both = ~np.isnan(benchmark.correct[a]) & ~np.isnan(benchmark.correct[b])
    right = benchmark.correct[:, both] > 0.5
    errors = error_overlap(right[a], right[b], benchmark.subject[both], draws=PAIR_DRAWS)
    letters = both & (benchmark.options > 1)
    first, second = benchmark.answer[a][letters], benchmark.answer[b][letters]
    gold, options = benchmark.gold_code[letters], benchmark.options[letters]
    value, source = _capa(benchmark, a, b, letters)
    return PairOverlap(a, b, errors, same_wrong(first, second, gold, options), value, source)


def _capa(benchmark: Benchmark, a: int, b: int, letters: Bools) -> tuple[float, str]:
    tables = benchmark.loglikelihoods[a], benchmark.loglikelihoods[b]
    gold = benchmark.gold_code
    if tables[0] is not None and tables[1] is not None:
        held = letters & ~np.isnan(tables[0][:, 0]) & ~np.isnan(tables[1][:, 0]) & (gold < TEXT_CODE) & (gold >= 0)
        if held.any():
            p1, p2 = (option_probabilities(table[held]) for table in tables if table is not None)
            return capa(p1, p2, gold[held]), "probabilities"
    answers = benchmark.answer[[a, b]]
    held = letters & (answers >= 0).all(axis=0) & (answers < TEXT_CODE).all(axis=0) & (gold < TEXT_CODE) & (gold >= 0)
    if not held.any():
        return float("nan"), ""
    width = int(max(answers[:, held].max(), gold[held].max(), benchmark.options[held].max() - 1)) + 1
    blank = np.where(np.arange(width)[None, :] < benchmark.options[held][:, None], 0.0, np.nan)
    one_hot = [np.where(np.arange(width)[None, :] == row[held][:, None], 1.0, blank) for row in answers]
    return capa(one_hot[0], one_hot[1], gold[held]), "letters"
