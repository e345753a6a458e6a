"""Reads JSON logs of inspect_ai (``inspect log convert --to json`` makes them from ``.eval`` files)."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from llmjobs.report.read.json_files import read_json
from llmjobs.report.study import Cost, ModelInfo, Question, RawEntry, RawRun, Record

RIGHT, WRONG = ("C", "1", "1.0", "True"), ("I", "0", "0.0", "False", "N")


def is_inspect_log(path: Path) -> bool:
    """Return whether a JSON file is such a log: it opens with ``version`` and ``eval``."""
    try:
        with path.open(encoding="utf-8") as file:
            start = file.read(4096)
        return (
            '"version"' in start
            and '"eval"' in start
            and "task" in start
            and isinstance(json.loads(path.read_text()), dict)
        )
    except (OSError, ValueError):
        return False


def read_inspect(path: Path) -> RawRun:
    """Read one log; samples that ended in an error are errors, not wrong answers."""
    run = RawRun(path, "inspect_ai log")
    log = read_json(path, run, path.name)
    spec = log.get("eval") or {}
    benchmark = str(spec.get("task") or path.stem).rsplit("/", 1)[-1]
    model = str(spec.get("model") or "unknown").removeprefix("hf/")
    entry = RawEntry(ModelInfo(model, run=path.stem), path.name)
    entry.protocol[benchmark] = _protocol(spec)
    records = entry.records.setdefault(benchmark, [])
    epochs = 0
    for sample in log.get("samples") or ():
        if int(sample.get("epoch") or 1) > 1:
            epochs += 1
            continue
        record, question = _sample(sample)
        records.append(record)
        run.questions[benchmark, record.subject, record.doc_id] = question
    if epochs:
        run.notice(path.name, f"{epochs} samples of later epochs are left out; the first epoch counts")
    if log.get("status") not in ("success", None):
        run.partial = True
        run.notice(path.name, f"the log ends with status {log.get('status')!r}: what it holds is counted")
    if not records:
        run.notice(path.name, "no samples in the log")
    entry.cost = _cost(log.get("stats") or {}, len(records))
    run.entries.append(entry)
    return run


def _protocol(spec: Mapping[str, Any]) -> dict[str, str]:
    arguments = spec.get("task_args") or {}
    found = {"prompt": "inspect_ai", "benchmark_version": str(spec.get("task_version", ""))}
    for name in ("fewshot", "num_fewshot", "cot"):
        if name in arguments:
            found["num_fewshot" if name == "fewshot" else name] = str(arguments[name])
    return found


def _sample(sample: Mapping[str, Any]) -> tuple[Record, Question]:
    scores = sample.get("scores") or {}
    score: Mapping[str, Any] = next(iter(scores.values()), {}) if isinstance(scores, dict) else {}
    value, answer = str(score.get("value")), score.get("answer")
    target = sample.get("target")
    gold = str(target[0] if isinstance(target, list) and target else target)
    metadata = sample.get("metadata") or {}
    failed = bool(sample.get("error")) or value not in RIGHT + WRONG
    prediction = str(answer) if answer not in (None, "") else None
    status = "error" if failed else "ok" if prediction is not None else "unparsed"
    record = Record(
        subject=str(metadata.get("subject") or metadata.get("category") or "all"),
        doc_id=str(sample.get("id")),
        gold=gold,
        prediction=None if failed else prediction,
        correct=None if failed else value in RIGHT,
        status=status,
        text=_reply(sample),
    )
    return record, Question(_input(sample.get("input")), tuple(map(str, sample.get("choices") or ())))


def _input(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(str(message.get("content", "")) for message in value if isinstance(message, dict))
    return str(value)


def _reply(sample: Mapping[str, Any]) -> str | None:
    choices = (sample.get("output") or {}).get("choices") or ()
    content = (choices[0].get("message") or {}).get("content") if choices else None
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return None if content is None else str(content)


def _cost(stats: Mapping[str, Any], questions: int) -> Cost | None:
    try:
        begin, end = (datetime.fromisoformat(str(stats[key])) for key in ("started_at", "completed_at"))
    except (KeyError, ValueError):
        return None
    return Cost(real_s=(end - begin).total_seconds(), questions=questions)
