"""Turns records into columns: codes, numbers and arrays, one table a benchmark."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmjobs.report.comparable import Candidate, Key, plain_number
from llmjobs.report.study import ABSENT, STATUS, TEXT_CODE, Benchmark, Record

LETTERS = {chr(ord("A") + index): index for index in range(26)}
LAST_LETTER = LETTERS["J"]
"""Letters beyond it (T and F, Y and N) are answers and no options, unless the options are known."""
MIN_LETTERS = 4
"""Options of a multiple-choice question whose log says only letters and never uses a later one."""


def build_benchmark(
    name: str, rows: Sequence[int], candidates: Sequence[Candidate], keys: Sequence[Key], metric: str = ""
) -> Benchmark:
    """Return the table of one benchmark on ``keys``, one row for each candidate."""
    lined = [[candidate.records.get(key) for key in keys] for candidate in candidates]
    gold = [next((r.gold for line in lined if (r := line[column]) and r.gold), "") for column in range(len(keys))]
    questions = tuple(next((q for c in candidates if (q := c.questions.get(key)) is not None), None) for key in keys)
    options = _options(lined, gold, questions)
    coder = _Coder()
    gold_code = np.array([coder(text, int(k)) for text, k in zip(gold, options, strict=True)], dtype=np.int64)
    shape = (len(lined), len(keys))
    correct, status = np.full(shape, np.nan), np.full(shape, ABSENT, dtype=np.int64)
    answer = np.full(shape, -1, dtype=np.int64)
    texts: dict[tuple[int, int], str] = {}
    for row, line in enumerate(lined):
        for column, record in enumerate(line):
            if record is None:
                continue
            status[row, column] = STATUS[record.status]
            if record.correct is not None and record.status != "error":
                correct[row, column] = float(record.correct)
            if record.prediction is not None:
                answer[row, column] = coder(record.prediction, int(options[column]))
            if record.text is not None or not options[column]:
                texts[row, column] = record.text if record.text is not None else record.prediction or ""
    return Benchmark(
        name=name,
        rows=tuple(rows),
        subject=np.array([subject for subject, _ in keys], dtype=np.str_),
        doc_id=tuple(doc_id for _, doc_id in keys),
        gold=tuple(gold),
        gold_code=gold_code,
        options=options,
        correct=correct,
        answer=answer,
        status=status,
        loglikelihoods=tuple(_loglikelihoods(line, options) for line in lined),
        metrics=_metrics(lined),
        questions=questions,
        texts=texts,
        protocol=_shared_protocol(candidates, name),
        metric=metric,
    )


class _Coder:
    """Numbers for answers: letters by their place, generated texts in order of appearance."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}

    def __call__(self, text: str, options: int) -> int:
        if options and text in LETTERS:
            return LETTERS[text]
        if options and not text:
            return -1
        return TEXT_CODE + self._texts.setdefault(text.strip(), len(self._texts))


def _options(
    lined: Sequence[Sequence[Record | None]], gold: Sequence[str], questions: Sequence[object]
) -> NDArray[np.int64]:
    """Return the number of options of each question: from choices, log-likelihoods, or letters used."""
    counts = np.zeros(len(gold), dtype=np.int64)
    letters = [LETTERS[g] + 1 for g in gold if g in LETTERS]
    widest = max(letters, default=0)
    for column, text in enumerate(gold):
        if text not in LETTERS:
            continue
        records = [line[column] for line in lined]
        scores = next((len(r.loglikelihoods) for r in records if r is not None and r.loglikelihoods), 0)
        choices = len(getattr(questions[column], "choices", ()))
        if choices > 1 or scores > 1:
            counts[column] = choices if choices > 1 else scores
        elif len(letters) == len(gold) and widest <= LAST_LETTER + 1:
            counts[column] = max(widest, MIN_LETTERS)
    return counts


def _loglikelihoods(line: Sequence[Record | None], options: NDArray[np.int64]) -> NDArray[np.float64] | None:
    width = max((len(r.loglikelihoods) for r in line if r is not None and r.loglikelihoods), default=0)
    if not width:
        return None
    table = np.full((len(line), width), np.nan)
    for column, record in enumerate(line):
        if record is not None and record.loglikelihoods and options[column]:
            table[column, : len(record.loglikelihoods)] = record.loglikelihoods
    return table


def _metrics(lined: Sequence[Sequence[Record | None]]) -> dict[str, NDArray[np.float64]]:
    names = sorted(
        {name for line in lined for record in line if record is not None and record.metrics for name in record.metrics}
    )
    tables = {name: np.full((len(lined), len(lined[0])), np.nan) for name in names}
    for row, line in enumerate(lined):
        for column, record in enumerate(line):
            for name, value in ((record.metrics or {}) if record is not None else {}).items():
                tables[name][row, column] = value
    return tables


def _shared_protocol(candidates: Sequence[Candidate], name: str) -> dict[str, str]:
    told: dict[str, list[str]] = {}
    for candidate in candidates:
        for field, value in candidate.entry.protocol.get(name, {}).items():
            values = told.setdefault(field, [])
            if plain_number(value) not in values:
                values.append(plain_number(value))
    return {field: " / ".join(values) for field, values in told.items()}
