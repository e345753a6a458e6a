"""Reads a plain CSV or JSONL: a line an answer, with a model, a question id, the answer and the gold answer.

Column names are found by their usual synonyms; optional columns are the subject, benchmark, settings of
the model, option probabilities (one column ``probabilities``/``loglikelihoods`` holding a JSON list, or
``prob_A``, ``prob_B``, …).
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmjobs.errors import DataError
from llmjobs.report.read.json_files import MAX_LINES_BYTES, each, metrics_of, name_of, read_lines, scores_of
from llmjobs.report.study import ModelInfo, Question, RawEntry, RawRun, Record

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "model": ("model", "model_id", "model_name"),
    "benchmark": ("benchmark", "task", "dataset"),
    "subject": ("subject", "category", "topic"),
    "doc_id": ("doc_id", "question_id", "id", "index", "idx", "qid"),
    "gold": ("gold", "answer_key", "target", "label", "correct_answer", "reference"),
    "prediction": ("prediction", "pred", "predicted", "model_answer", "response", "answer"),
    "correct": ("correct", "is_correct", "acc", "score"),
    "text": ("raw_completion", "completion", "raw", "text", "output"),
    "question": ("question", "prompt_text"),
    "choices": ("choices", "options"),
    "study": ("study",),
    "run": ("run",),
    "device": ("device",),
    "dtype": ("dtype", "precision"),
    "quantization": ("quantization", "quant"),
    "revision": ("revision",),
    "loglikelihoods": ("loglikelihoods", "logprobs"),
    "probabilities": ("probabilities", "probs"),
    "metrics": ("metrics",),
}
NAMES = ("model", "benchmark", "subject", "doc_id", "study", "run", "device", "dtype", "quantization", "revision")
OPTION_COLUMN = re.compile(r"^(prob|p|logprob|loglikelihood)_([A-J0-9])$", re.IGNORECASE)


def read_table(path: Path, name: str | None = None) -> RawRun:
    """Read a CSV, TSV or JSONL of answers; ``name`` is the benchmark where no column says it."""
    run = RawRun(path, "table")
    lines = read_lines(path, run, path.name) if path.suffix == ".jsonl" else _csv_lines(path)
    entries: dict[tuple[str, ...], RawEntry] = {}
    columns: dict[str, str] | None = None
    skipped = 0

    def add(line: Mapping[str, Any]) -> bool:
        nonlocal columns
        columns = columns or find_columns(line, path)
        values = {name: line.get(column) for name, column in columns.items()}
        if values.get("doc_id") in (None, "") or values.get("model") in (None, ""):
            return False
        _add(run, entries, name or path.stem, values, line)
        return True

    for added in each(lines, add, run, path.name):
        skipped += not added
    if columns is None:
        raise DataError(f"{path.name}: no row could be read from it")
    if skipped:
        run.notice(path.name, f"{skipped} rows name no model or no question; not counted")
    run.entries = list(entries.values())
    _only_marks(run)
    return run


def _csv_lines(path: Path) -> Iterator[dict[str, Any]]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    csv.field_size_limit(10_000_000)
    if not path.is_file() or path.stat().st_size > MAX_LINES_BYTES:
        raise DataError(f"{path.name}: is not a regular file of at most {MAX_LINES_BYTES >> 30} GiB")
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            yield from csv.DictReader(file, delimiter=delimiter)
    except csv.Error as error:
        raise DataError(f"{path.name}: cannot be read as CSV ({error})") from error


def find_columns(line: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Match the columns with their synonyms; a DataError names what is missing."""
    found: dict[str, str] = {}
    lower = {str(column).strip().lower(): column for column in line if column is not None}
    for name, synonyms in SYNONYMS.items():
        for synonym in synonyms:
            if synonym in lower and lower[synonym] not in found.values():
                found[name] = lower[synonym]
                break
    missing = [name for name in ("model", "doc_id") if name not in found]
    if "correct" not in found and not {"gold", "prediction"} <= set(found):
        missing += [name for name in ("gold", "prediction") if name not in found]
    if missing:
        raise DataError(
            f"{path.name}: no column for {', '.join(missing)}; a table of answers needs a model, a question"
            f" id, and the answer with the gold answer (or 'correct'); found: {', '.join(map(str, lower))}"
        )
    return found


def _add(
    run: RawRun,
    entries: dict[tuple[str, ...], RawEntry],
    benchmark_name: str,
    values: Mapping[str, Any],
    line: Mapping[str, Any],
) -> None:
    text = {name: "" if values.get(name) is None else str(values[name]).strip() for name in SYNONYMS}
    text |= {key: name_of(text[key]) for key in NAMES}
    record = _record(text, values, line, text["subject"] or "all")
    identity = tuple(text[k] for k in ("study", "run", "model", "revision", "device", "dtype", "quantization"))
    if identity not in entries:
        study, source, model, revision, device, dtype, quantization = identity
        info = ModelInfo(model, revision, device, dtype, quantization, study, source)
        entries[identity] = RawEntry(info, "/".join(part for part in (run.path.name, study, source) if part))
    benchmark, subject = text["benchmark"] or name_of(benchmark_name), record.subject
    entries[identity].records.setdefault(benchmark, []).append(record)
    if text["question"]:
        raw = values.get("choices")
        choices = raw if isinstance(raw, list) else _json_list(raw) or []
        run.questions[benchmark, subject, record.doc_id] = Question(text["question"], tuple(map(str, choices)))


def _record(text: Mapping[str, str], values: Mapping[str, Any], line: Mapping[str, Any], subject: str) -> Record:
    prediction = text["prediction"] or None
    marked = _mark(values.get("correct"))
    scores = values.get("loglikelihoods")
    numbers = scores if isinstance(scores, list) else _json_list(scores)
    if numbers is None:
        numbers = _from_probabilities(values.get("probabilities"), line)
    correct = marked if marked is not None else prediction is not None and prediction == text["gold"]
    status = "ok" if prediction is not None or (marked is not None and not text["gold"]) else "unparsed"
    return Record(
        subject=subject,
        doc_id=text["doc_id"],
        gold=text["gold"],
        prediction=prediction,
        correct=correct and status != "unparsed",
        status=status,
        loglikelihoods=scores_of(numbers),
        metrics=metrics_of(values.get("metrics")),
        text=text["text"] or None,
    )


def _mark(value: Any) -> bool | None:
    """Read true/false however it was written."""
    word = str(value).strip().lower()
    if word in ("1", "1.0", "true", "yes", "c", "correct"):
        return True
    return False if word in ("0", "0.0", "false", "no", "i", "incorrect") else None


def _json_list(value: Any) -> list[Any] | None:
    if not isinstance(value, str) or not value.startswith("["):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _from_probabilities(value: Any, line: Mapping[str, Any]) -> list[float] | None:
    """Return log-likelihoods from probabilities, in one column or one an option."""
    listed = value if isinstance(value, list) else _json_list(value)
    logs = False
    if listed is None:
        columns = sorted(
            (m[2].upper(), m[1].lower(), name) for name in line if name and (m := OPTION_COLUMN.match(name))
        )
        listed = [line[name] for _, _, name in columns]
        logs = bool(columns) and columns[0][1].startswith("log")
    try:
        numbers = [float(x) for x in listed]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if logs else [math.log(max(x, 1e-300)) for x in numbers] or None


def _only_marks(run: RawRun) -> None:
    """Say it when a log holds right and wrong but no answers: some analyses need the answers."""
    for entry in run.entries:
        records: Iterable[Record] = (r for part in entry.records.values() for r in part)
        if all(not record.gold for record in records):
            run.notice(
                entry.source,
                f"{entry.info.id}: only right and wrong are recorded, no answers; "
                "letters, same wrong answers and unreadable replies cannot be examined",
            )
