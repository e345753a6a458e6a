"""Reads JSON logs of inspect_ai (``inspect log convert --to json`` makes them from ``.eval`` files)."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from llmjobs.errors import DataError
from llmjobs.report.read.json_files import each, listed, mapping, name_of, number_or_none, read_json, read_text
from llmjobs.report.study import Cost, ModelInfo, Question, RawEntry, RawRun, Record

RIGHT, WRONG = ("C", "1", "1.0", "True"), ("I", "0", "0.0", "False", "N")


def is_inspect_log(path: Path) -> bool:
    """Return whether a JSON file is such a log: it opens with ``version`` and ``eval``."""
    try:
        if not path.is_file():
            return False
        with path.open(encoding="utf-8") as file:
            start = file.read(4096)
        return (
            '"version"' in start
            and '"eval"' in start
            and "task" in start
            and isinstance(json.loads(read_text(path)), dict)
        )
    except (OSError, ValueError, RecursionError, DataError):
        return False


def read_inspect(path: Path) -> RawRun:
    """Read one log; samples that ended in an error are errors, not wrong answers."""
    run = RawRun(path, "inspect_ai log")
    log = read_json(path, run, path.name)
    spec = mapping(log.get("eval"))
    benchmark = name_of(spec.get("task") or path.stem).rsplit("/", 1)[-1]
    model = name_of(spec.get("model") or "unknown").removeprefix("hf/")
    entry = RawEntry(ModelInfo(model, run=path.stem), path.name)
    entry.protocol[benchmark] = _protocol(spec)
    records = entry.records.setdefault(benchmark, [])
    samples = [sample for sample in listed(log.get("samples")) if isinstance(sample, dict)]
    first = [sample for sample in samples if (number_or_none(sample.get("epoch")) or 1) <= 1]
    epochs = len(samples) - len(first)
    for record, question in each(first, _sample, run, path.name):
        records.append(record)
        run.questions[benchmark, record.subject, record.doc_id] = question
    if epochs:
        run.notice(path.name, f"{epochs} samples of later epochs are left out; the first epoch counts")
    if log.get("status") not in ("success", None):
        run.partial = True
        run.notice(path.name, f"the log ends with status {log.get('status')!r}: what it holds is counted")
    if not records:
        run.notice(path.name, "no samples in the log")
    entry.cost = _cost(mapping(log.get("stats")), len(records))
    run.entries.append(entry)
    return run


def _protocol(spec: Mapping[str, Any]) -> dict[str, str]:
    arguments = mapping(spec.get("task_args"))
    found = {"prompt": "inspect_ai", "benchmark_version": name_of(spec.get("task_version", ""))}
    for name in ("fewshot", "num_fewshot", "cot"):
        if name in arguments:
            found["num_fewshot" if name == "fewshot" else name] = name_of(arguments[name])
    return found


def _sample(sample: Mapping[str, Any]) -> tuple[Record, Question]:
    score = mapping(next(iter(mapping(sample.get("scores")).values()), {}))
    value, answer = str(score.get("value")), score.get("answer")
    target = sample.get("target")
    gold = str(target[0] if isinstance(target, list) and target else target)
    metadata = mapping(sample.get("metadata"))
    failed = bool(sample.get("error")) or value not in RIGHT + WRONG
    prediction = str(answer) if answer not in (None, "") else None
    status = "error" if failed else "ok" if prediction is not None else "unparsed"
    record = Record(
        subject=name_of(metadata.get("subject") or metadata.get("category") or "all"),
        doc_id=name_of(sample.get("id")),
        gold=gold,
        prediction=None if failed else prediction,
        correct=None if failed else value in RIGHT,
        status=status,
        text=_reply(sample),
    )
    return record, Question(_input(sample.get("input")), tuple(map(str, listed(sample.get("choices")))))


def _input(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(str(message.get("content", "")) for message in value if isinstance(message, dict))
    return str(value)


def _reply(sample: Mapping[str, Any]) -> str | None:
    choices = listed(mapping(sample.get("output")).get("choices"))
    content = mapping(mapping(choices[0]).get("message")).get("content") if choices else None
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return None if content is None else str(content)


def _cost(stats: Mapping[str, Any], questions: int) -> Cost | None:
    try:
        begin, end = (datetime.fromisoformat(str(stats[key])) for key in ("started_at", "completed_at"))
    except (KeyError, ValueError):
        return None
    return Cost(real_s=(end - begin).total_seconds(), questions=questions)
