"""The summary of a converse job, its table on the terminal, and ``--show``."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np

from llmjobs.calls.spending import Spending, spending_lines
from llmjobs.changed_prompts import empty_answers, empty_text, thinking_cut, thinking_cut_text
from llmjobs.converse.tasks import ConverseTask
from llmjobs.errors import printable
from llmjobs.eval.summary import failed_lines
from llmjobs.records import TurnRecord, as_records
from llmjobs.statistics.intervals import accuracy_interval, clustered_interval
from llmjobs.statistics.paired import clustered_comparison
from llmjobs.terminal_text import plural, seconds, table
from llmjobs.work import unit_progress
from llmjobs.work.folder import RunFolder
from llmjobs.work.journal import Record, read_records
from llmjobs.work.outcome import Outcome
from llmjobs.work.units import Unit

CONFIDENCE = "95%, the wider of Wilson's and the cluster-robust one over conversations"
TEST = "sign flips of whole conversations, two-sided"


def summarize(folder: RunFolder, tasks: Sequence[ConverseTask], outcome: Outcome, spending: Spending) -> dict[str, Any]:
    """The ``converse`` part of ``summary.json``, with ``spending`` if an endpoint was used."""
    groups: dict[tuple[str, str], list[ConverseTask]] = defaultdict(list)
    for task in tasks:
        groups[task.model.name, task.set_name].append(task)
    missing = [task.path for task in tasks if not unit_progress.is_done(folder, task.path, task.unit().declared)]
    return {
        "status": "partial" if missing else "complete",
        "interval": CONFIDENCE,
        "test": TEST,
        "models": [_group(folder, model, name, members) for (model, name), members in groups.items()],
        "units_missing": [path for path in missing if path not in outcome.failed],
        "units_failed": [{"unit": path, "error": line} for path, line in outcome.failed.items()],
        **({"spending": spending.to_record()} if spending.calls else {}),
    }


def _group(folder: RunFolder, model: str, set_name: str, tasks: Sequence[ConverseTask]) -> dict[str, Any]:
    records = {str(task.memory): as_records(_read(folder, task, "records.jsonl"), TurnRecord) for task in tasks}
    timings = {str(task.memory): _turns(_read(folder, task, "timings.jsonl")) for task in tasks}
    pairs = [("full", "none"), *(("full", name) for name in records if name not in ("full", "none"))]
    return {
        "model": model,
        "set": set_name,
        "memories": [_memory(task, records[str(task.memory)], timings[str(task.memory)]) for task in tasks],
        "history": _paired(records.get("full"), records.get("none")),
        "pairs": [
            {"first": first, "second": second, **found}
            for first, second in pairs
            if (found := _paired(records.get(first), records.get(second)))
        ],
    }


def _read(folder: RunFolder, task: ConverseTask, name: str) -> list[Record]:
    path = folder.path / task.path / name
    return read_records(path, allow_torn=True) if path.exists() else []


def _turns(timings: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [turn for line in timings for turn in line.get("turns", ())]


def _memory(task: ConverseTask, records: Sequence[TurnRecord], timings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    asked = [record for record in records if record["expected"] is not None]
    answered = [record for record in records if record["status"] == "ok"]
    return {
        "strategy": task.memory.strategy,
        "history": task.memory.history,
        "context": task.memory.context,
        **_accuracy(asked),
        "turns": len(records),
        "errors": sum(record["status"] == "error" for record in records),
        "first_error": next((str(record["error"]) for record in records if record["status"] == "error"), None),
        "tokens_sent": sum(record["tokens_sent"] for record in answered),
        "tokens_dropped": sum(record["tokens_dropped"] for record in answered),
        "tokens_side": sum(record["tokens_side"] for record in answered),
        "tokens_new": sum(record["tokens_new"] for record in answered),
        **empty_answers(record["answer"] for record in records),
        **thinking_cut(sum(record.get("thinking_cut") is True for record in records)),
        "ttft_s": _median(turn["ttft_s"] for turn in timings),
        "real_s": _median(turn["real_s"] for turn in timings),
        "by_distance": _by(asked, lambda record: record["distance"], "distance"),
        "by_kind": _by(asked, lambda record: record["kind"], "kind"),
        "by_turn": _growth(answered, timings),
    }


def _by(records: Sequence[TurnRecord], key: Callable[[TurnRecord], Any], name: str) -> list[dict[str, Any]]:
    parts: dict[Any, list[TurnRecord]] = defaultdict(list)
    for record in records:
        parts[key(record)].append(record)
    return [{name: value, **_accuracy(parts[value])} for value in sorted(parts)]


def _accuracy(records: Sequence[TurnRecord]) -> dict[str, Any]:
    scored = [record for record in records if record["status"] == "ok"]
    n, right = len(scored), sum(bool(record["correct"]) for record in scored)
    low, high = _ends(right, scored) if n else (None, None)
    return {
        "n": n,
        "conversations": len({record["conversation"] for record in scored}),
        "correct": right,
        "acc": round(right / n, 6) if n else None,
        "low": None if low is None else round(float(low), 6),
        "high": None if high is None else round(float(high), 6),
    }


def _ends(right: int, scored: Sequence[TurnRecord]) -> tuple[float, float]:
    """Return the wider of Wilson's interval and the cluster-robust one, end by end.

    Answers of one conversation are correlated. If all conversations agree, the second interval collapses.
    """
    low, high = accuracy_interval(right, len(scored))
    values = [float(bool(record["correct"])) for record in scored]
    _, wide_low, wide_high = clustered_interval(values, [record["conversation"] for record in scored])
    if np.isnan(wide_low):
        return low, high
    return max(0.0, min(low, wide_low)), min(1.0, max(high, wide_high))


def _growth(answered: Sequence[TurnRecord], timings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tokens and time per turn as the conversation grows: medians over conversations."""
    sent, first, real = defaultdict(list), defaultdict(list), defaultdict(list)
    for record in answered:
        sent[record["turn"]].append(record["tokens_sent"] or 0)
    for turn in timings:
        first[turn["turn"]].append(turn["ttft_s"])
        real[turn["turn"]].append(turn["real_s"])
    return [
        {
            "turn": turn,
            "n": len(sent[turn]),
            "tokens_sent": _median(sent[turn]),
            "ttft_s": _median(first[turn]),
            "real_s": _median(real[turn]),
        }
        for turn in sorted(sent)
    ]


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return round(median(found), 6) if found else None


def _paired(first: Sequence[TurnRecord] | None, second: Sequence[TurnRecord] | None) -> dict[str, Any] | None:
    """The difference on the questions that both answered."""
    one, other = _scored(first or ()), _scored(second or ())
    both = [key for key in one if key in other]
    if not both:
        return None
    conversations = [key[0] for key in both]
    found = asdict(clustered_comparison([one[key] for key in both], [other[key] for key in both], conversations))
    return {
        "conversations": len(set(conversations)),
        "acc_first": round(sum(one[key] for key in both) / len(both), 6),
        "acc_second": round(sum(other[key] for key in both) / len(both), 6),
        **{key: round(value, 9) if isinstance(value, float) else value for key, value in found.items()},
    }


def _scored(records: Iterable[TurnRecord]) -> dict[tuple[str, int], bool]:
    return {
        (record["conversation"], record["turn"]): bool(record["correct"])
        for record in records
        if record["expected"] is not None and record["status"] == "ok"
    }


def render_summary(summary: Mapping[str, Any]) -> str:
    """A table of memories for each model and set, followed by the paired test."""
    header = ("", "strategy", "context", "right (95% interval)", "questions", "errors", "sent per turn", "first token")
    lines: list[str] = []
    for group in summary["models"]:
        rows = [_row(memory) for memory in group["memories"]]
        lines += [f"{group['model']} · {group['set']}", *table([header[1:], *rows])]
        if pair := group["history"]:
            lines.append(_sentence(pair))
        lines += [_error_line(group, memory) for memory in group["memories"] if memory["errors"]]
        lines += [
            f"{_whose(group, memory)}: {empty_text(memory['empty'])}, counted as wrong where a fact was asked for"
            for memory in group["memories"]
            if memory.get("empty")
        ]
        lines += [_cut_line(group, memory) for memory in group["memories"] if memory.get("thinking_cut")]
        lines.append("")
    lines += spending_lines(summary.get("spending"))
    lines += failed_lines(summary["units_failed"])
    if summary["units_missing"]:
        lines.append(f"not finished: {plural(len(summary['units_missing']), 'unit')}; run the same command to resume")
    return "\n".join(lines).rstrip()


def _name(memory: Mapping[str, Any]) -> str:
    return str(memory["strategy"]) if memory["history"] else "none (history off)"


def _error_line(group: Mapping[str, Any], memory: Mapping[str, Any]) -> str:
    count = plural(memory["errors"], "turn")
    return f"{_whose(group, memory)}: {count} ended in an error: {printable(memory['first_error'])}"


def _cut_line(group: Mapping[str, Any], memory: Mapping[str, Any]) -> str:
    return f"{_whose(group, memory)}: {thinking_cut_text(memory['thinking_cut'])}"


def _whose(group: Mapping[str, Any], memory: Mapping[str, Any]) -> str:
    limit = f" {memory['context']}" if memory["context"] else ""
    return f"{group['model']}, {_name(memory)}{limit}"


def _row(memory: Mapping[str, Any]) -> tuple[str, ...]:
    turns = memory["turns"] - memory["errors"]
    return (
        _name(memory),
        "limit" if memory["context"] is None else str(memory["context"]),
        f"{memory['acc']:.0%} ({memory['low']:.0%}–{memory['high']:.0%})" if memory["acc"] is not None else "–",
        str(memory["n"]),
        str(memory["errors"]),
        f"{memory['tokens_sent'] / turns:,.0f}" if turns else "–",
        seconds(memory["ttft_s"]),
    )


def _sentence(pair: Mapping[str, Any]) -> str:
    conversations = plural(pair["conversations"], "conversation")
    p = f"p = {pair['p']:.2g}" if pair["p"] >= 1e-4 else "p < 0.0001"
    return (
        f"history on {pair['acc_first']:.0%}, off {pair['acc_second']:.0%} of {plural(pair['n'], 'question')} in "
        f"{conversations}: {100 * pair['difference']:+.0f} points "
        f"({100 * pair['low']:+.0f} to {100 * pair['high']:+.0f}, {p}, sign-flip test over conversations)"
    )


def record_printer(write: Callable[[str], Any]) -> Callable[[Unit, Sequence[TurnRecord]], None]:
    """Return the function that the runner calls with the records of each conversation."""

    def show(unit: Unit, records: Sequence[TurnRecord]) -> None:
        write(f"── {unit.path} · {records[0]['conversation']}" if records else unit.path)
        for record in records:
            write(f"   user  {printable(record['question'])}")
            write(f"  agent  {printable(record['answer'] or '')}{_verdict(record)}")

    return show


def _verdict(record: TurnRecord) -> str:
    if record["status"] == "error":
        return f"[no answer: {printable(record['error'])}]"
    if record["expected"] is None:
        return ""
    return "  [right]" if record["correct"] else f"  [wrong; expected: {printable(record['expected'])}]"
