"""Accuracy of every model: overall, by subject, by metric, with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llmjobs.report.study import ERROR, UNPARSED, Benchmark, Floats, Ints
from llmjobs.statistics.intervals import Interval, clustered_interval, macro_interval, wilson
from llmjobs.statistics.paired import PairedDifference, paired_difference, simultaneous_level
from llmjobs.statistics.patterns import Pattern, mean_differences


@dataclass(frozen=True)
class ModelAccuracy:
    """One model on one benchmark; ``interval`` is Wilson's, ``clustered`` also allows for other subjects."""

    row: int
    entry: int
    n: int
    right: int
    interval: Interval
    macro: Interval
    clustered: Interval
    errors: int
    unparsed: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class BenchmarkAccuracy:
    """A benchmark's leaderboard (best first) and its table by subject (rows as in the benchmark).

    ``subject_right`` and ``subject_scored`` count, model by model, the questions of each subject.
    """

    benchmark: Benchmark
    models: tuple[ModelAccuracy, ...]
    subjects: tuple[str, ...]
    by_subject: Floats
    subject_sizes: tuple[int, ...]
    subject_right: Ints
    subject_scored: Ints

    def subject_interval(self, row: int, place: int) -> Interval:
        """Return one model's accuracy in one subject with Wilson's interval."""
        right, n = int(self.subject_right[row, place]), int(self.subject_scored[row, place])
        return Interval(right / n if n else float("nan"), *wilson(right, n))

    def of(self, row: int) -> ModelAccuracy:
        """Return the accuracy of a row of the benchmark."""
        return next(model for model in self.models if model.row == row)


def measure_accuracy(benchmark: Benchmark) -> BenchmarkAccuracy:
    """Compute the leaderboard of one benchmark; questions that ended in an error are part of no accuracy."""
    models = [_model(benchmark, row) for row in range(len(benchmark.rows))]
    models.sort(key=lambda m: (-m.interval.value if m.n else 1.0, m.entry))
    subjects = benchmark.subjects
    masks = [benchmark.subject == subject for subject in subjects]
    table = np.full((len(benchmark.rows), len(subjects)), np.nan)
    right, scored = np.zeros(table.shape, dtype=np.int64), np.zeros(table.shape, dtype=np.int64)
    for place, mask in enumerate(masks):
        part = benchmark.correct[:, mask]
        scored[:, place] = (~np.isnan(part)).sum(axis=1)
        right[:, place] = np.nansum(part, axis=1).round()
    some = scored > 0
    table[some] = right[some] / scored[some]
    sizes = tuple(int(mask.sum()) for mask in masks)
    return BenchmarkAccuracy(benchmark, tuple(models), tuple(subjects), table, sizes, right, scored)


@dataclass(frozen=True)
class SubjectMean:
    """A subject's accuracy averaged over models, with an interval that holds for all subjects together."""

    subject: str
    n: int
    interval: Interval


def subjects_together(benchmark: Benchmark, rows: tuple[int, ...]) -> tuple[list[SubjectMean], Pattern] | None:
    """Return each subject's accuracy averaged over ``rows`` and the test whether subjects differ, or None.

    A question's value is the share of models that have it right, so all answers to one question form one observation.
    Intervals: Student's t over a subject's questions, Bonferroni over the subjects.
    """
    table = benchmark.correct[list(rows)]
    held = ~np.isnan(table).any(axis=0)
    means, subjects = table[:, held].mean(axis=0), benchmark.subject[held]
    names = sorted(set(map(str, subjects)))
    if len(names) < 2 or min(int(np.sum(subjects == name)) for name in names) < 2:
        return None
    level = simultaneous_level(len(names))
    found = []
    for name in names:
        part = means[subjects == name]
        value, low, high = clustered_interval(part, np.arange(len(part)), level)
        found.append(SubjectMean(name, len(part), Interval(value, max(low, 0.0), min(high, 1.0))))
    return found, mean_differences(means, subjects)


def _model(benchmark: Benchmark, row: int) -> ModelAccuracy:
    values = benchmark.correct[row]
    held = ~np.isnan(values)
    right, n = int(np.nansum(values)), int(held.sum())
    low, high = wilson(right, n)
    groups = benchmark.subject[held]
    means = {
        name: float(np.nanmean(table[row]))
        for name, table in benchmark.metrics.items()
        if not np.isnan(table[row]).all()
    }
    return ModelAccuracy(
        row=row,
        entry=benchmark.rows[row],
        n=n,
        right=right,
        interval=Interval(right / n if n else float("nan"), low, high),
        macro=macro_interval(values[held], groups),
        clustered=clustered_interval(values[held], groups),
        errors=int(np.sum(benchmark.status[row] == ERROR)),
        unparsed=int(np.sum(benchmark.status[row] == UNPARSED)),
        metrics=means,
    )


def compare_metrics(benchmark: Benchmark, first: str, second: str) -> list[tuple[int, PairedDifference]]:
    """Compare two 0/1 metrics of the same answers (acc_norm with acc), model by model: second minus first."""
    found = []
    if first in benchmark.metrics and second in benchmark.metrics:
        for row in range(len(benchmark.rows)):
            a, b = benchmark.metrics[first][row], benchmark.metrics[second][row]
            held = ~np.isnan(a) & ~np.isnan(b)
            if held.any():
                found.append((row, paired_difference(b[held] > 0.5, a[held] > 0.5)))
    return found
