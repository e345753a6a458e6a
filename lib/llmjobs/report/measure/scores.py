"""Mean scores: every metric of a benchmark separately, including partial credit."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from llmjobs.report.study import Floats, MetricTable
from llmjobs.statistics.intervals import Interval, wilson, wilson_arrays

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
    return Interval(float(values.mean()), *wilson(int(values.sum()), len(values)))


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
