"""Reads lm-evaluation-harness: ``samples_TASK_DATE.jsonl`` and, beside them, ``results_DATE.json``."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmjobs.report.read.json_files import (
    each,
    listed,
    mapping,
    name_of,
    number_or_none,
    read_json,
    read_lines,
    scores_of,
)
from llmjobs.report.study import Cost, ModelInfo, Question, RawEntry, RawRun, Record

NAME = re.compile(r"^samples_(?P<task>.+?)(_(?P<date>\d{4}-\d{2}-\d{2}T[\d\-.:]+))?\.jsonl$")
GROUPS = ("mmlu", "arc", "bbh", "agieval", "cmmlu", "ceval", "mmlu_pro")
LETTERS = "ABCDEFGHIJ"


def sample_files(path: Path) -> list[Path]:
    """Return the sample files of a folder, or of the folders in it."""
    return sorted(path.glob("samples_*.jsonl")) or sorted(path.glob("*/samples_*.jsonl"))


def read_lm_eval(path: Path, files: Sequence[Path] | None = None) -> RawRun:
    """Read a folder of lm-eval's output; of several files for one task in one folder the newest counts."""
    run = RawRun(path, "lm-eval log")
    newest: dict[tuple[Path, str], tuple[str, Path]] = {}
    for file in files or sample_files(path):
        match = NAME.match(file.name)
        task, date = (match["task"], match["date"] or "") if match else (file.stem, "")
        earlier = newest.get((file.parent, task))
        if earlier:
            old = min((date, file), earlier)[1]
            run.notice(old.name, "an older log of the same task; the newest counts")
        newest[file.parent, task] = max((date, file), earlier or ("", file))
    for folder in sorted({folder for folder, _ in newest}):
        tasks = {task: found for (place, task), found in newest.items() if place == folder}
        run.entries.append(_entry(run, folder, tasks))
    return run


def _entry(run: RawRun, folder: Path, tasks: Mapping[str, tuple[str, Path]]) -> RawEntry:
    results = _results(run, folder)
    config = mapping(results.get("config"))
    arguments = str(config.get("model_args") or "")
    name = results.get("model_name") or _argument(arguments, "pretrained") or folder.name.replace("__", "/")
    quantization = next((q for q in ("4bit", "8bit") if f"load_in_{q}=True" in arguments.replace(" ", "")), "")
    info = ModelInfo(
        id=name_of(name),
        revision=name_of(_argument(arguments, "revision")),
        device=name_of(config.get("device") or "").split(":")[0],
        dtype=name_of(config.get("model_dtype") or _argument(arguments, "dtype")).removeprefix("torch."),
        quantization=quantization,
        run=folder.name,
    )
    entry = RawEntry(info, folder.name)
    shots, versions = mapping(results.get("n-shot")), mapping(results.get("versions"))
    for task, (_, file) in sorted(tasks.items()):
        benchmark, subject = split_task(task)
        entry.records.setdefault(benchmark, []).extend(_records(run, file, benchmark, subject))
        protocol = entry.protocol.setdefault(benchmark, {"prompt": "lm-eval"})
        if task in shots:
            protocol["num_fewshot"] = name_of(shots[task])
        if task in versions:
            protocol["benchmark_version"] = name_of(versions[task])
    seconds = number_or_none(_as_number(results.get("total_evaluation_time_seconds")))
    questions = sum(map(len, entry.records.values()))
    entry.cost = Cost(real_s=seconds, questions=questions) if seconds else None
    return entry


def _results(run: RawRun, folder: Path) -> dict[str, Any]:
    files = sorted(folder.glob("results*.json"))
    if not files:
        run.notice(folder.name, "no results file beside the samples: model settings and shots are not known")
        return {}
    return read_json(files[-1], run, files[-1].name)


def _as_number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _argument(arguments: str, name: str) -> str:
    match = re.search(rf"(?:^|,){name}=([^,]*)", arguments)
    return match[1].strip() if match else ""


def split_task(task: str) -> tuple[str, str]:
    """Return benchmark and subject of a task name: ``mmlu_astronomy`` is astronomy of mmlu."""
    for group in sorted(GROUPS, key=len, reverse=True):
        if task.startswith(f"{group}_"):
            return group, task.removeprefix(f"{group}_")
    return task, "all"


def _records(run: RawRun, file: Path, benchmark: str, subject: str) -> list[Record]:
    found: dict[str, Record] = {}
    unscored = 0

    def made(line: Mapping[str, Any]) -> tuple[Record | None, Question | None]:
        return _record(line, subject), _question(line)

    for record, question in each(read_lines(file, run, file.name), made, run, file.name):
        if record is None:
            unscored += 1
            continue
        if record.doc_id in found and found[record.doc_id].correct:
            continue  # one line a filter: the most lenient one counts, as in flexible-extract
        found[record.doc_id] = record
        if question:
            run.questions[benchmark, subject, record.doc_id] = question
    if unscored:
        run.notice(file.name, f"{unscored} lines carry no score of right or wrong; not counted")
    return list(found.values())


def _record(line: Mapping[str, Any], subject: str) -> Record | None:
    metrics = {
        name: value
        for name in ("acc", "acc_norm", "exact_match", "mc1", "mc2")
        if (value := number_or_none(line.get(name))) is not None
    }
    score = metrics.get("acc", metrics.get("exact_match", metrics.get("mc1")))
    if score is None or "doc_id" not in line:
        return None
    scores = _loglikelihoods(line)
    gold = _gold(line.get("target"), scores)
    if scores:
        prediction: str | None = LETTERS[max(range(len(scores)), key=scores.__getitem__)]
        text = None
    else:
        reply = _first(line.get("filtered_resps"))
        prediction = None if reply in (None, "", "[invalid]") else str(reply)
        raw = _first(line.get("resps"))
        text = None if raw is None else str(raw)
    return Record(
        subject=subject,
        doc_id=name_of(line["doc_id"]),
        gold=gold,
        prediction=prediction,
        correct=score > 0.5,
        status="ok" if prediction is not None else "unparsed",
        loglikelihoods=scores,
        metrics=metrics,
        text=text,
    )


def _first(value: Any) -> Any:
    while isinstance(value, list):
        value = value[0] if value else None
    return value


def _loglikelihoods(line: Mapping[str, Any]) -> list[float] | None:
    """Log-likelihoods of the options: filtered_resps is a list of (log-likelihood, is greedy) pairs."""
    pairs = line.get("filtered_resps")
    if not isinstance(pairs, list) or len(pairs) < 2 or len(pairs) > len(LETTERS):
        return None
    try:
        return scores_of([float(pair[0]) for pair in pairs])
    except (TypeError, ValueError, LookupError, OverflowError):
        return None


def _gold(target: Any, scores: list[float] | None) -> str:
    text = str(target).strip()
    if scores and text.isdecimal() and len(text) < 3 and int(text) < len(scores):
        return LETTERS[int(text)]
    return text


def _question(line: Mapping[str, Any]) -> Question | None:
    doc = mapping(line.get("doc"))
    text = next((str(doc[key]) for key in ("question", "query", "ctx", "goal", "passage") if doc.get(key)), "")
    choices = doc.get("choices") or doc.get("endings") or ()
    if isinstance(choices, dict):
        choices = choices.get("text") or ()
    return Question(text, tuple(map(str, listed(choices))), name_of(line.get("doc_hash", ""))) if text else None
