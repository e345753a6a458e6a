"""Every metric of a benchmark by itself: what the logs score their answers by, beside the one that counts."""

from collections.abc import Sequence

import numpy as np

from llmjobs.report.columns import Candidate, Key
from llmjobs.report.match import Moved
from llmjobs.report.read.scored import is_graded, value_of
from llmjobs.report.study import Answer, MetricTable


def metric_tables(
    benchmark: str,
    metric: str,
    rows: Sequence[int],
    candidates: Sequence[Candidate],
    moves: Sequence[Moved],
    keys: Sequence[Key],
) -> list[MetricTable]:
    """Return a table for each metric on ``keys``, the one that counts first; none where there is nothing to add.

    A benchmark of right and wrong with a single metric is told by its accuracy.
    """
    records: dict[str, list[dict[Key, Answer]]] = {metric: [dict(candidate.records) for candidate in candidates]}
    for number, (candidate, moved) in enumerate(zip(candidates, moves, strict=True)):
        for name, part in candidate.entry.by_metric.get(benchmark, {}).items():
            if name and name != metric:
                found = records.setdefault(name, [{} for _ in candidates])
                found[number] = {(r.subject, r.doc_id): r for r in map(moved.record, part)}
    graded = {name: any(is_graded([*part.values()]) for part in parts) for name, parts in records.items()}
    if len(records) == 1 and not graded[metric]:
        return []
    subject = np.array([subject for subject, _ in keys], dtype=np.str_)
    tables = []
    for name, parts in records.items():
        held = [number for number, part in enumerate(parts) if part]
        values = np.full((len(held), len(keys)), np.nan)
        for row, number in enumerate(held):
            for column, key in enumerate(keys):
                record = parts[number].get(key)
                value = value_of(record) if record is not None and record.status != "error" else None
                values[row, column] = np.nan if value is None else value
        tables.append(
            MetricTable(
                benchmark, name, tuple(rows[n] for n in held), values, subject, graded[name], counts=name == metric
            )
        )
    return tables
