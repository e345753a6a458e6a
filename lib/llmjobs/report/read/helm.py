"""Reads a HELM run folder: ``run_spec.json``, ``instances.json`` and ``display_predictions.json``."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmjobs.errors import DataError
from llmjobs.report.read.json_files import each, listed, mapping, name_of, number_or_none, read_json, read_text
from llmjobs.report.study import ModelInfo, Question, RawEntry, RawRun, Record

FILES = ("run_spec.json", "instances.json", "display_predictions.json")
SCORES = ("exact_match", "quasi_exact_match", "prefix_exact_match")


def is_helm_folder(path: Path) -> bool:
    """Whether the files of a HELM run are there."""
    return path.is_dir() and all((path / name).exists() for name in FILES)


def read_helm(path: Path) -> RawRun:
    """Read one HELM run; perturbed copies of questions are left out and counted."""
    run = RawRun(path, "HELM run")
    spec = read_json(path / FILES[0], run, f"{path.name}/{FILES[0]}")
    adapter = mapping(spec.get("adapter_spec"))
    name = name_of(spec.get("name") or path.name)
    benchmark = re.split(r"[:,]", name)[0]
    subject = match[1] if (match := re.search(r"subject=([^,]+)", name)) else "all"
    entry = RawEntry(ModelInfo(name_of(adapter.get("model") or "unknown"), run=path.name), path.name)
    shots = name_of(adapter.get("max_train_instances", ""))
    entry.protocol[benchmark] = {
        "prompt": name_of(f"HELM {adapter.get('method', '')}").strip(),
        "num_fewshot": shots,
    }
    instances = {str(item.get("id")): item for item in _list(path / FILES[1], run)}
    records = entry.records.setdefault(benchmark, [])
    lines = _list(path / FILES[2], run)
    kept = [line for line in lines if not line.get("perturbation")]
    left_out = len(lines) - len(kept)

    def made(line: Mapping[str, Any]) -> tuple[Record, Question]:
        instance = instances.get(str(line.get("instance_id"))) or {}
        return _record(line, instance, subject, name_of(line.get("instance_id")))

    for record, question in each(kept, made, run, f"{path.name}/{FILES[2]}"):
        records.append(record)
        run.questions[benchmark, subject, record.doc_id] = question
    if left_out:
        run.notice(path.name, f"{left_out} perturbed copies of questions are left out")
    run.entries.append(entry)
    return run


def _list(path: Path, run: RawRun) -> list[Mapping[str, Any]]:
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError, DataError) as error:
        run.notice(f"{path.parent.name}/{path.name}", f"cannot be read ({error})")
        return []
    return [item for item in listed(value) if isinstance(item, dict)]


def _record(line: Mapping[str, Any], instance: Mapping[str, Any], subject: str, key: str) -> tuple[Record, Question]:
    references = instance.get("references") or ()
    texts = [str((reference.get("output") or {}).get("text", "")) for reference in references]
    right = [i for i, reference in enumerate(references) if "correct" in (reference.get("tags") or ())]
    stats = mapping(line.get("stats"))
    score = next((number_or_none(stats[name]) for name in SCORES if name in stats), None)
    raw, mapped = str(line.get("predicted_text", "")), line.get("mapped_output")
    letters = bool(right) and len(texts) > 1
    gold = chr(ord("A") + right[0]) if letters else (texts[right[0]] if right else "")
    if letters and mapped is not None and str(mapped) in texts:
        prediction: str | None = chr(ord("A") + texts.index(str(mapped)))
    elif letters:
        letter = re.match(r"^\s*\(?([A-J])(?:[).:,]|\s*$)", raw)
        prediction = letter[1] if letter and ord(letter[1]) - ord("A") < len(texts) else None
    else:
        prediction = raw.strip() or None
    record = Record(
        subject=subject,
        doc_id=key,
        gold=gold,
        prediction=prediction,
        correct=None if score is None else score > 0.5,
        status="error" if score is None else "ok" if prediction is not None else "unparsed",
        text=raw,
    )
    return record, Question(str((instance.get("input") or {}).get("text", "")), tuple(texts))
