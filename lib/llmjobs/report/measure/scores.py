"""Mean scores of every metric, with partial credit, and the option scores behind recorded answers.

Accuracy on HellaSwag and others takes the option with the largest log-likelihood per character (``acc_norm``).
Confidence and agreement must use the same scores, because the plain ones may favour another option.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from llmjobs.report.study import TEXT_CODE, Benchmark, Bools, Floats, MetricTable
from llmjobs.statistics.calibration import option_probabilities
from llmjobs.statistics.intervals import Interval, accuracy_interval, wilson_arrays

EQUAL = 1e-12
"""Scores with a smaller spread count as equal."""


@dataclass(frozen=True)
class MeanScore:
    """One model's mean by one metric; ``n`` is the number of questions that have this score."""

    entry: int
    n: int
    interval: Interval


@dataclass(frozen=True)
class MetricScores:
    """The means of one metric, best first; ``best`` is the paired difference of the first two and its interval."""

    table: MetricTable
    models: tuple[MeanScore, ...]
    best: Interval | None


def measure_scores(table: MetricTable) -> MetricScores:
    """Return the means of a metric: Wilson's interval for 0 and 1, :func:`mean_interval` for partial credit."""
    models = []
    for row, entry in enumerate(table.rows):
        values = table.values[row][~np.isnan(table.values[row])]
        models.append(MeanScore(entry, len(values), mean_interval(values) if table.graded else _share(values)))
    order = sorted(range(len(models)), key=lambda row: (-models[row].interval.value if models[row].n else 1.0, row))
    best = None
    if len(order) > 1:
        both = table.values[order[0]] - table.values[order[1]]
        best = mean_interval(both[~np.isnan(both)], low=-1.0)
    return MetricScores(table, tuple(models[row] for row in order), best)


def _share(values: Floats) -> Interval:
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    return Interval(float(values.mean()), *accuracy_interval(int(values.sum()), len(values)))


def mean_interval(values: Floats, low: float = 0.0, level: float = 0.95) -> Interval:
    """Return the mean of scores between ``low`` and 1 with Student's interval, cut to the possible range.

    Equal scores say nothing about their spread, so they get Wilson's interval, the widest that such a mean can have.
    """
    n = len(values)
    if not n:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean, spread = float(values.mean()), float(values.std(ddof=1)) if n > 1 else 0.0
    if spread < EQUAL:
        place = (mean - low) / (1.0 - low)
        below, above = (float(end) for end in wilson_arrays(place * n, n, level))
        return Interval(mean, low + below * (1.0 - low), low + above * (1.0 - low))
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * spread / n**0.5
    return Interval(mean, max(low, mean - half), min(1.0, mean + half))


AGREES = 0.995
"""Share of the recorded answers that must have the largest score; the rest is due to ties and rounding."""


@dataclass(frozen=True)
class OptionScores:
    """Probabilities of the options (questions × options, absent ones ``nan``) if ``held``; ``kind`` is their source."""

    probabilities: Floats
    held: Bools
    kind: str


def option_scores(benchmark: Benchmark, row: int) -> OptionScores | None:
    """Return the probabilities whose largest is the recorded answer; None if no known way reproduces the answers."""
    table = benchmark.loglikelihoods[row]
    gold, answer = benchmark.gold_code, benchmark.answer[row]
    if table is None:
        return None
    width = table.shape[1]
    held = ~np.isnan(table[:, :2]).any(axis=1) & (gold >= 0) & (gold < min(width, TEXT_CODE))
    held &= ~np.isnan(benchmark.correct[row]) & (answer >= 0) & (answer < width)
    held[held] &= ~np.isnan(table[held, gold[held]]) & ~np.isnan(table[held, answer[held]])
    if not held.any():
        return None
    for kind, scores in _ways(benchmark, table):
        usable = held & ~np.isnan(scores[:, :2]).any(axis=1)
        if not usable.any():
            continue
        best = np.nanmax(np.where(np.isnan(scores[usable]), -np.inf, scores[usable]), axis=1)
        chosen = scores[np.flatnonzero(usable), answer[usable]]
        if np.mean(chosen >= best - 1e-6 * np.abs(best)) >= AGREES:
            probabilities = np.full(scores.shape, np.nan)
            probabilities[usable] = option_probabilities(scores[usable])
            return OptionScores(probabilities, usable, kind)
    return None


def _ways(benchmark: Benchmark, table: Floats) -> Iterator[tuple[str, Floats]]:
    yield "log-likelihoods", table
    if any(question is None or not question.choices for question in benchmark.questions):
        return
    for kind, length in (("log-likelihoods per character", len), ("log-likelihoods per byte", _bytes)):
        lengths = np.full(table.shape, np.nan)
        for column, question in enumerate(benchmark.questions):
            known = [max(length(choice), 1) for choice in (question.choices if question else ())][: table.shape[1]]
            lengths[column, : len(known)] = known
        yield kind, table / lengths


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
