"""Accuracy of every model: overall, by subject, by metric, and without questions whose label is marked as wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from llmjobs.report.study import ERROR, UNPARSED, Benchmark, Floats, Ints, Study
from llmjobs.statistics.intervals import Interval, accuracy_interval, clustered_interval, macro_interval
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
        return Interval(right / n if n else float("nan"), *accuracy_interval(right, n))

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
    low, high = accuracy_interval(right, n)
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


def without_faulty(study: Study, benchmark: Benchmark) -> Benchmark | None:
    """Return ``benchmark`` without the questions that the label notes mark as faulty; None if there are none.

    Questions that nobody has reviewed stay: see :func:`faulty_columns` for how many were.
    """
    faulty, _ = faulty_columns(study, benchmark)
    kept = np.setdiff1d(np.arange(benchmark.n), faulty)
    return take_columns(benchmark, kept) if len(faulty) and len(kept) else None


def faulty_columns(study: Study, benchmark: Benchmark) -> tuple[Ints, int]:
    """Return the columns of the questions marked as faulty, and how many questions were reviewed."""
    notes = [
        study.label_notes.get((benchmark.name, str(subject), doc_id))
        for subject, doc_id in zip(benchmark.subject, benchmark.doc_id, strict=True)
    ]
    faulty = np.array([place for place, note in enumerate(notes) if note not in (None, "ok")], dtype=np.int64)
    return faulty, sum(note is not None for note in notes)


def take_columns(benchmark: Benchmark, columns: Ints) -> Benchmark:
    """Return the benchmark on some of its questions."""
    place = {int(column): at for at, column in enumerate(columns)}
    return replace(
        benchmark,
        subject=benchmark.subject[columns],
        doc_id=tuple(benchmark.doc_id[column] for column in columns),
        gold=tuple(benchmark.gold[column] for column in columns),
        gold_code=benchmark.gold_code[columns],
        options=benchmark.options[columns],
        correct=benchmark.correct[:, columns],
        answer=benchmark.answer[:, columns],
        status=benchmark.status[:, columns],
        loglikelihoods=tuple(None if table is None else table[columns] for table in benchmark.loglikelihoods),
        metrics={name: table[:, columns] for name, table in benchmark.metrics.items()},
        questions=tuple(benchmark.questions[column] for column in columns),
        texts={(row, place[column]): text for (row, column), text in benchmark.texts.items() if column in place},
    )
