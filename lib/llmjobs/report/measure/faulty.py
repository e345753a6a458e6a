"""A benchmark without the questions whose label is marked as wrong."""

from dataclasses import replace

import numpy as np

from llmjobs.report.study import Benchmark, Ints, Study


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
