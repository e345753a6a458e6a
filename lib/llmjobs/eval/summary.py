"""The summary of an eval: accuracy with intervals and times per model, its table, and ``--show``."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from llmjobs.benchmarks.base import LETTERS, Benchmark, Doc
from llmjobs.benchmarks.registry import benchmark_class, names
from llmjobs.calls.spending import Spending, spending_lines
from llmjobs.changed_prompts import ChangedPrompts, count_changed, empty_answers, empty_text
from llmjobs.clocks import NO_GPU_TIME
from llmjobs.errors import printable
from llmjobs.memory import needed_bytes
from llmjobs.records import EvalRecord, as_records
from llmjobs.statistics.intervals import ACCURACY_INTERVAL, accuracy_interval
from llmjobs.terminal_text import DASH, fixed, gib, plural, seconds, table
from llmjobs.work import unit_progress
from llmjobs.work.folder import RunFolder, read_object
from llmjobs.work.journal import Record, read_records
from llmjobs.work.outcome import Outcome
from llmjobs.work.units import Unit


def summarize(
    folder: RunFolder, units: Sequence[Unit], outcome: Outcome, spending: Spending | None = None
) -> dict[str, Any]:
    """The ``eval`` part of ``summary.json``, with times summed over all attempts, and what calls to endpoints took."""
    groups: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        groups[unit.group].append(unit)
    missing = [unit.path for unit in units if not unit_progress.is_done(folder, unit.path, unit.declared)]
    return {
        "status": "partial" if missing else "complete",
        "models": [_model(folder, name, members) for name, members in groups.items()],
        "units_missing": [path for path in missing if path not in outcome.failed],
        "units_failed": [{"unit": path, "error": line} for path, line in outcome.failed.items()],
        **({"spending": spending.to_record()} if spending and spending.calls else {}),
    }


def _model(folder: RunFolder, name: str, units: Sequence[Unit]) -> dict[str, Any]:
    records: dict[tuple[str, str], list[EvalRecord]] = {}
    asked = {(str(u.declared["benchmark"]), str(u.declared["subject"])): int(u.declared["num_fewshot"]) for u in units}
    timings: list[Record] = []
    attempts, real_s, memory_kills = 1, 0.0, 0
    for unit in units:
        place = folder.path / unit.path
        if not unit_progress.has_begun(folder, unit.path):
            continue
        cursor, _ = unit_progress.load(folder.unit(unit.path), unit.declared)
        key = (str(unit.declared["benchmark"]), str(unit.declared["subject"]))
        records[key] = as_records(read_records(place / "records.jsonl", allow_torn=True), EvalRecord)
        timings += read_records(place / "timings.jsonl", allow_torn=True)
        attempts, real_s = max(attempts, cursor.attempts), real_s + cursor.real_s
        memory_kills += cursor.memory_kills
    everything = [record for part in records.values() for record in part]
    scoring_s = sum(line["real_s"] for line in timings if line.get("phase") == "run" and "real_s" in line)
    return {
        "model": name,
        **_times(folder, name, timings, real_s),
        "questions": len(everything),
        "scoring_s": round(scoring_s, 3),
        "questions_per_s": round(len(everything) / scoring_s, 3) if scoring_s else None,
        "attempts": attempts,
        "memory_kills": memory_kills,
        "errors": sum(record["status"] == "error" for record in everything),
        "first_error": next((str(r.get("error")) for r in everything if r["status"] == "error"), None),
        "unparsed": sum(record["status"] == "unparsed" for record in everything),
        **empty_answers(record["text"] for record in everything if "text" in record and record["status"] != "error"),
        "benchmarks": _benchmarks(records, asked),
        **_prompts(folder, name),
    }


def _prompts(folder: RunFolder, name: str) -> dict[str, Any]:
    """What the chat template adds to the prompts, if one is used."""
    found = read_object(folder.path / "eval" / name / "model.json")
    return {key: found[key] for key in ("thinking", "prompt_date", "template_system") if found.get(key)}


def _times(folder: RunFolder, name: str, timings: Sequence[Record], real_s: float) -> dict[str, Any]:
    gpu = [line["gpu_s"] for line in timings if line.get("gpu_s") is not None]
    device_peaks = [line["peak_device_bytes"] for line in timings if line.get("peak_device_bytes")]
    anon = max((line["peak_anon_bytes"] for line in timings if line.get("peak_anon_bytes")), default=None)
    mapped = max((n for line in timings if (n := line.get("mapped_weight_bytes")) is not None), default=None)
    device = str(read_object(folder.path / "eval" / name / "model.json").get("device", "unknown"))
    if device == "server":
        return {"real_s": round(real_s, 3), **ON_A_SERVER}
    return {
        "real_s": round(real_s, 3),
        "user_s": round(_sum(timings, "user_s"), 3),
        "system_s": round(_sum(timings, "system_s"), 3),
        "gpu_s": round(sum(gpu), 3) if gpu else None,
        "gpu_s_reason": None if gpu else NO_GPU_TIME.get(device, "no model was loaded"),
        "load_s": round(_sum(timings, "load_s"), 3),
        "peak_rss_bytes": max((line.get("peak_rss_bytes") or 0 for line in timings), default=0) or None,
        "needed_bytes": needed_bytes(anon, mapped),
        "peak_device_bytes": max(device_peaks, default=None),
        **_each_device(timings),
    }


ON_A_SERVER: Mapping[str, Any] = {
    "user_s": None,
    "system_s": None,
    "gpu_s": None,
    "gpu_s_reason": "the model ran on a server",
    "load_s": None,
    "peak_rss_bytes": None,
    "needed_bytes": None,
    "peak_device_bytes": None,
}
"""For a model behind an endpoint, only real time is known; this machine's CPU and memory say nothing about it."""


def _each_device(timings: Sequence[Record]) -> dict[str, Any]:
    """Peak memory and time of each GPU, if a model was spread over several."""
    rows = [line for line in timings if line.get("peak_device_bytes_each")]
    if not rows:
        return {}
    columns = list(zip_longest(*(line["peak_device_bytes_each"] for line in rows), fillvalue=0))
    seconds = list(zip_longest(*(line["gpu_s_each"] for line in rows), fillvalue=0.0))
    return {
        "peak_device_bytes_each": [max(column) for column in columns],
        "gpu_s_each": [round(sum(column), 3) for column in seconds],
    }


def _sum(lines: Iterable[Mapping[str, Any]], key: str) -> float:
    return sum(line.get(key) or 0.0 for line in lines)


def _benchmarks(
    records: Mapping[tuple[str, str], Sequence[EvalRecord]], asked: Mapping[tuple[str, str], int]
) -> list[dict[str, Any]]:
    by_benchmark: dict[str, dict[str, Sequence[EvalRecord]]] = defaultdict(dict)
    for (benchmark, subject), part in records.items():
        by_benchmark[benchmark][subject] = part
    return [
        _benchmark(name, subjects, {subject: asked[name, subject] for subject in subjects})
        for name, subjects in by_benchmark.items()
    ]


def _benchmark(name: str, subjects: Mapping[str, Sequence[EvalRecord]], asked: Mapping[str, int]) -> dict[str, Any]:
    rows = [
        {"subject": subject, **_accuracy(part), **count_changed(part, asked[subject]).to_record()}
        for subject, part in subjects.items()
    ]
    scored = [row["acc"] for row in rows if row["acc"] is not None]
    together = [record for part in subjects.values() for record in part]
    return {
        "benchmark": name,
        **_accuracy(together),
        "macro_acc": round(sum(scored) / len(scored), 6) if scored else None,
        "metrics": _metrics(name, together),
        "interval": ACCURACY_INTERVAL,
        **count_changed(together, max(asked.values(), default=0)).to_record(),
        "subjects": rows,
    }


def _accuracy(records: Sequence[EvalRecord]) -> dict[str, Any]:
    """Micro accuracy over the scored questions. Errors are counted separately; an unreadable reply counts as wrong."""
    scored = [record for record in records if record["status"] != "error"]
    n, right = len(scored), sum(bool(record["correct"]) for record in scored)
    if not n:
        return {"n": 0, "correct": 0, "acc": None, "stderr": None, "low": None, "high": None}
    low, high = accuracy_interval(right, n)
    acc = right / n
    stderr = math.sqrt(acc * (1 - acc) / (n - 1)) if n > 1 else None
    figures = {"acc": acc, "stderr": stderr, "low": float(low), "high": float(high)}
    return {"n": n, "correct": right} | {k: None if v is None else round(v, 6) for k, v in figures.items()}


def _metrics(benchmark: str, records: Sequence[EvalRecord]) -> dict[str, float]:
    """Each metric over all records, aggregated as the benchmark defines it."""
    aggregate = (benchmark_class(benchmark) if benchmark in names() else Benchmark).aggregate
    values: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for name, value in record["metrics"].items():
            values[name].append(value)
    return {name: round(aggregate(name, found), 6) for name, found in values.items()}


HEADER = (
    "model", "accuracy (95% interval)", "macro", "questions", "q/s", "real", "CPU", "GPU", "memory", "resident",
)  # fmt: skip


def render_summary(summary: Mapping[str, Any]) -> str:
    """A table of models, and the units that failed or are missing."""
    rows = [_row(model) for model in summary["models"]]
    lines = table([HEADER, *rows])
    if races := (summary.get("stop") or {}).get("races"):
        lines += [race["sentence"] for race in races]
        lines.append(
            "intervals: for a number of questions fixed beforehand; the report has those that hold at any stop."
        )
    for model in summary["models"]:
        if model["unparsed"]:
            lines.append(f"{model['model']}: {plural(model['unparsed'], 'reply', 'replies')} could not be parsed")
        if empty := model.get("empty"):
            lines.append(f"{model['model']}: {empty_text(empty)}, counted as wrong")
        if model["errors"]:
            lines.append(
                f"{model['model']}: {plural(model['errors'], 'question')} ended in an error: {model.get('first_error')}"
            )
        lines += _changed(model)
    lines += failed_lines(summary["units_failed"])
    if summary["units_missing"]:
        lines.append(f"not finished: {plural(len(summary['units_missing']), 'unit')}; run the same command to resume")
    lines += spending_lines(summary.get("spending"))
    reasons = {m["gpu_s_reason"] for m in summary["models"] if m["gpu_s"] is None and m["gpu_s_reason"]}
    lines += [f"GPU –: {reason}" for reason in sorted(reasons)]
    lines.append(
        "q/s: questions per second during scoring. real: loading, planning, scoring and saving, over all attempts."
    )
    lines.append("CPU: user and system time of all threads; it exceeds real time if several threads work at once.")
    if any(model.get("needed_bytes") for model in summary["models"]):
        lines.append(
            "memory: peak memory that the system cannot reclaim; resident: peak including file pages, which it can."
        )
    return "\n".join(lines)


def _changed(model: Mapping[str, Any]) -> list[str]:
    """Prompts that differ from the manifest, by benchmark: shots that did not fit, prompts that were cut."""
    found = []
    for benchmark in model["benchmarks"]:
        if text := str(ChangedPrompts.from_record(benchmark)):
            subjects = [row["subject"] for row in benchmark["subjects"] if str(ChangedPrompts.from_record(row))]
            named = f" ({', '.join(subjects[:3])}{f' and {len(subjects) - 3} more' if len(subjects) > 3 else ''})"
            where = named if len(benchmark["subjects"]) > 1 else ""
            found.append(f"{model['model']}: {benchmark['benchmark']}: {text}{where}")
    return found


def failed_lines(failed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Failed units with the reason, one line per reason."""
    units: dict[str, list[str]] = {}
    for one in failed:
        units.setdefault(one["error"], []).append(one["unit"])
    return [
        f"failed: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {error}"
        for error, names in units.items()
    ]


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    needed = model["peak_device_bytes"] or model.get("needed_bytes")
    return (
        model["model"],
        "; ".join(_accuracy_cell(b, len(model["benchmarks"]) > 1) for b in model["benchmarks"]) or DASH,
        "; ".join(_percent(b["macro_acc"]) for b in model["benchmarks"]) or DASH,
        f"{model['questions']:,}",
        f"{model['questions_per_s']:.1f}" if model["questions_per_s"] else DASH,
        seconds(model["real_s"]),
        seconds(None if model["user_s"] is None else model["user_s"] + model["system_s"]),
        seconds(model["gpu_s"]),
        gib(needed),
        gib(model["peak_rss_bytes"]),
    )


def _accuracy_cell(benchmark: Mapping[str, Any], named: bool) -> str:
    name = f"{benchmark['benchmark']} " if named else ""
    if benchmark["acc"] is None:
        return f"{name}{DASH}"
    return f"{name}{_percent(benchmark['acc'])} ({_percent(benchmark['low'])}–{_percent(benchmark['high'])})"


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{fixed(100 * value, 1)}%"


def record_printer(
    docs_of: Callable[[str], Sequence[Doc]], write: Callable[[str], Any]
) -> Callable[[Unit, Sequence[EvalRecord]], None]:
    """Return the function that the runner calls with the records of each step."""

    def show(unit: Unit, records: Sequence[EvalRecord]) -> None:
        docs = docs_of(unit.path)
        for record in records:
            write(render(record, docs[record["doc_id"]]))

    return show


def render(record: EvalRecord, doc: Doc) -> str:
    """The lines for one question. Control characters from data or models are escaped."""
    lines = [f"── {record['model']} · {record['benchmark']} · {record['subject']} · question {record['doc_id']}"]
    lines += [f"   {printable(line)}" for line in doc.question.splitlines()]
    for letter, choice in zip(LETTERS, doc.choices, strict=False):
        mark = "→" if record["prediction"] == letter else " "
        lines.append(f" {mark} {letter}. {printable(choice)}")
    return "\n".join([*lines, f"   {verdict(record)}", ""])


def verdict(record: EvalRecord) -> str:
    """The outcome of one question, such as ``answered B, right``."""
    gold = printable(str(record["gold"]))
    if record["status"] == "error":
        return f"not scored: {printable(str(record.get('error', 'no reason recorded')))}"
    if record["status"] == "unparsed":
        return f"no answer could be read from {printable(str(record.get('text')))!r} (right: {gold})"
    answer = printable(str(record["prediction"]))
    return f"answered {answer}, right" if record["correct"] else f"answered {answer}, wrong (right: {gold})"
