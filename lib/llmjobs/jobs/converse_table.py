"""The converse summary as it stands on the terminal, and ``--show``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmjobs.errors import printable
from llmjobs.jobs.eval_table import failed_lines, seconds, table
from llmjobs.runner.units import Record, Unit


def render_summary(summary: Mapping[str, Any]) -> str:
    """A table of memories for each model and set, the paired test under it."""
    header = ("", "strategy", "context", "right (95% interval)", "questions", "errors", "sent a turn", "first token")
    lines: list[str] = []
    for group in summary["models"]:
        rows = [_row(memory) for memory in group["memories"]]
        lines += [f"{group['model']} · {group['set']}", *table([header[1:], *rows])]
        if pair := group["history"]:
            lines.append(_sentence(pair))
        lines.append("")
    lines += failed_lines(summary["units_failed"])
    if summary["units_missing"]:
        lines.append(f"not finished: {len(summary['units_missing'])} units; the same command goes on")
    return "\n".join(lines).rstrip()


def _row(memory: Mapping[str, Any]) -> tuple[str, ...]:
    turns = memory["turns"] - memory["errors"]
    name = memory["strategy"] if memory["history"] else "none (history off)"
    return (
        name,
        "limit" if memory["context"] is None else str(memory["context"]),
        f"{memory['acc']:.0%} ({memory['low']:.0%}–{memory['high']:.0%})" if memory["acc"] is not None else "–",
        str(memory["n"]),
        str(memory["errors"]),
        f"{memory['tokens_sent'] / turns:,.0f}" if turns else "–",
        seconds(memory["ttft_s"]),
    )


def _sentence(pair: Mapping[str, Any]) -> str:
    p = f"p = {pair['p']:.2g}" if pair["p"] >= 1e-4 else "p < 0.0001"
    return (
        f"history on {pair['acc_first']:.0%}, off {pair['acc_second']:.0%} of {pair['n']} questions in "
        f"{pair['conversations']} conversations: {100 * pair['difference']:+.0f} points "
        f"({100 * pair['low']:+.0f} to {100 * pair['high']:+.0f}, {p}, conversations' signs flipped)"
    )


def shower(write: Callable[[str], Any]) -> Callable[[Unit, Sequence[Record]], None]:
    """Return what the runner calls with each conversation's records."""

    def show(unit: Unit, records: Sequence[Record]) -> None:
        write(f"── {unit.path} · {records[0]['conversation']}" if records else unit.path)
        for record in records:
            write(f"   user  {printable(record['question'])}")
            write(f"  agent  {printable(record['answer'] or '')}{_verdict(record)}")

    return show


def _verdict(record: Record) -> str:
    if record["status"] == "error":
        return f"[no answer: {printable(record['error'])}]"
    if record["expected"] is None:
        return ""
    return "  [right]" if record["correct"] else f"  [wrong, right: {printable(record['expected'])}]"
