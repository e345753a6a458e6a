"""Turn records into columns, one table per benchmark, and refuse what is not comparable."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmjobs.errors import DataError
from llmjobs.report.study import ABSENT, STATUS, TEXT_CODE, Answer, Benchmark, Notice, Question, RawEntry, RawRun
from llmjobs.terminal_text import agree

# Refuse to compare what is not comparable, and name the differences.

Key = tuple[str, str]
"""Subject and id of a question."""
OWN_NUMBERS = ("benchmark_version", "data_hash")
"""Fields that each tool counts in a different way; they are only compared between logs of one tool."""


@dataclass(frozen=True)
class Candidate:
    """One entry's part in one benchmark: its records, its protocol and its questions."""

    label: str
    entry: RawEntry
    run: RawRun
    asked: frozenset[Key]
    records: Mapping[Key, Answer]
    questions: Mapping[Key, Question]

    @property
    def gold(self) -> dict[Key, str]:
        """Gold answers by question; "" if the log has none."""
        return {key: record.gold for key, record in self.records.items()}


def differing_protocol(candidates: Sequence[Candidate], benchmark: str) -> list[str]:
    """Return one sentence for every field of the protocol in which two candidates differ."""
    fields: dict[tuple[str, str], dict[str, list[str]]] = {}
    for candidate in candidates:
        for name, value in candidate.entry.protocol.get(benchmark, {}).items():
            tool = candidate.run.kind if name.startswith(OWN_NUMBERS) else ""
            fields.setdefault((name, tool), {}).setdefault(plain_number(value), []).append(candidate.label)
    return [
        f"{name} differs ({'; '.join(f'{value or chr(45)}: {few(who)}' for value, who in sorted(values.items()))})"
        for (name, _), values in sorted(fields.items())
        if len(values) > 1
    ]


def plain_number(text: str) -> str:
    """Return a version or a number of shots without a redundant ``.0``: ``1`` and ``1.0`` are the same."""
    return text.removesuffix(".0") if re.fullmatch(r"\d+\.0", text) else text


def differing_questions(candidates: Sequence[Candidate]) -> str | None:
    """Return a sentence if the candidates were not asked the same questions, otherwise None."""
    sets = {candidate.asked for candidate in candidates}
    if len(sets) < 2:
        return None
    shared = len(frozenset.intersection(*sets))
    sizes: dict[frozenset[Key], list[str]] = {}
    for candidate in candidates:
        sizes.setdefault(candidate.asked, []).append(candidate.label)
    groups = "; ".join(f"{len(asked):,}: {few(who)}" for asked, who in sorted(sizes.items(), key=lambda s: -len(s[0])))
    without = [candidate.label for candidate in candidates if not candidate.questions]
    hint = ""
    if not shared and without:
        have = agree(len(set(without)), "has", "have")
        hint = f"; the ids differ and {few(without)} {have} no question texts; add them with --questions FOLDER"
    return f"different questions ({groups}; {shared:,} in common{hint})"


def differing_gold(candidates: Sequence[Candidate]) -> set[Key]:
    """Return the questions whose gold answer or text is not the same for all candidates.

    Missing values contradict nothing. Texts agree if one contains the other, because a tool may show a passage or
    options with its question. Digests of questions exist only in runs of llmjobs and are compared among those.
    """
    gold: dict[Key, str] = {}
    texts: dict[Key, str] = {}
    digests: dict[Key, str] = {}
    differ: set[Key] = set()
    read: set[tuple[int, Key]] = set()
    several = len({id(candidate.run) for candidate in candidates}) > 1
    for candidate in candidates:
        for key, record in candidate.records.items():
            question = candidate.questions.get(key)
            answer = fold_gold(record.gold)
            if answer and gold.setdefault(key, answer) != answer:
                differ.add(key)
            if question is None or not several or (id(candidate.run), key) in read:
                continue
            read.add((id(candidate.run), key))
            text = fold(question.text)
            known = texts.setdefault(key, text)
            if text not in known and known not in text:
                differ.add(key)
            own = candidate.run.kind == "llmjobs run" and question.hash
            if own and digests.setdefault(key, question.hash) != question.hash:
                differ.add(key)
    return differ


def fold(text: str, choices: Sequence[str] = ()) -> str:
    """Return a text without case, blanks and punctuation, to find it in another tool's log."""
    return re.sub(r"[\W_]+", "", " ".join((text, *choices)).lower())


def fold_gold(text: str) -> str:
    """Return a gold answer for comparison: without case, blanks and the commas of large numbers."""
    return re.sub(r"(?<=\d),(?=\d{3})", "", " ".join(text.lower().split()))


def refuse(problems: Mapping[str, Sequence[str]], common_helps: bool, notices: Sequence[Notice] = ()) -> None:
    """Raise a DataError if there is a problem, with the notices on the input that may explain it."""
    if not problems:
        return
    faults = "; ".join(f"{benchmark}: {', '.join(lines)}" for benchmark, lines in problems.items())
    help_ = "Add --common to compare the common questions, or " if common_helps else ""
    notes = "; ".join(map(str, notices[:3])) + ("; …" if len(notices) > 3 else "")
    unlike = "" if common_helps else "Add --any-prompt to compare them anyway, or "
    raise DataError(
        f"these results are not comparable: {faults}. {help_}{unlike}--where COLUMN=VALUE (study, run, model, device,"
        " quantization, benchmark, metric) to use only some of them"
        + (f". Notes on the input: {notes}" if notes else "")
    )


def few(names: Iterable[str]) -> str:
    """Return the first three names and the number of the others."""
    listed = list(dict.fromkeys(names))
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


# Turn records into codes, numbers and arrays.

LETTERS = {chr(ord("A") + index): index for index in range(26)}
LAST_LETTER = LETTERS["J"]
"""Later letters (T and F, Y and N) are answers, not options, unless the options are known."""
MIN_LETTERS = 4
"""Assumed options of a multiple-choice question if its log only has letters and never uses a later one."""


def build_benchmark(
    name: str, rows: Sequence[int], candidates: Sequence[Candidate], keys: Sequence[Key], metric: str = ""
) -> Benchmark:
    """Return the table of one benchmark on ``keys``, one row per candidate."""
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
    """Codes for answers: letters by their place, generated texts in order of appearance."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}

    def __call__(self, text: str, options: int) -> int:
        if options and text in LETTERS:
            return LETTERS[text]
        if options and not text:
            return -1
        return TEXT_CODE + self._texts.setdefault(text.strip(), len(self._texts))


def _options(
    lined: Sequence[Sequence[Answer | None]], gold: Sequence[str], questions: Sequence[object]
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


def _loglikelihoods(line: Sequence[Answer | None], options: NDArray[np.int64]) -> NDArray[np.float64] | None:
    width = max((len(r.loglikelihoods) for r in line if r is not None and r.loglikelihoods), default=0)
    if not width:
        return None
    table = np.full((len(line), width), np.nan)
    for column, record in enumerate(line):
        if record is not None and record.loglikelihoods and options[column]:
            table[column, : len(record.loglikelihoods)] = record.loglikelihoods
    return table


def _metrics(lined: Sequence[Sequence[Answer | None]]) -> dict[str, NDArray[np.float64]]:
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
    fields: dict[str, list[str]] = {}
    for candidate in candidates:
        for field, value in candidate.entry.protocol.get(name, {}).items():
            values = fields.setdefault(field, [])
            if plain_number(value) not in values:
                values.append(plain_number(value))
    return {field: " / ".join(values) for field, values in fields.items()}
