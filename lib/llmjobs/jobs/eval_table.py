"""The eval summary as it stands on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmjobs.changed_prompts import ChangedPrompts
from llmjobs.statistics.rounding import fixed

GIB = 1 << 30
HEADER = (
    "model", "accuracy (95% interval)", "macro", "questions", "q/s", "real", "CPU", "GPU", "memory", "resident",
)  # fmt: skip


def render_summary(summary: Mapping[str, Any]) -> str:
    """A table of models, and what failed or is missing."""
    rows = [_row(model) for model in summary["models"]]
    lines = table([HEADER, *rows])
    for model in summary["models"]:
        if model["unparsed"] or model["errors"]:
            lines.append(f"{model['model']}: {model['unparsed']} replies unread, {model['errors']} questions in error")
        lines += _changed(model)
    lines += failed_lines(summary["units_failed"])
    if summary["units_missing"]:
        lines.append(f"not finished: {len(summary['units_missing'])} units; the same command goes on")
    reasons = {m["gpu_s_reason"] for m in summary["models"] if m["gpu_s"] is None and m["gpu_s_reason"]}
    lines += [f"GPU –: {reason}" for reason in sorted(reasons)]
    lines.append(
        "q/s counts the time of scoring alone; real is loading, planning, scoring and saving, in all attempts."
    )
    lines.append("CPU is user + system time of all threads: with several threads it passes real time.")
    if any(model.get("needed_bytes") for model in summary["models"]):
        lines.append("memory is what must stay; resident counts file pages too, which the system can take back.")
    return "\n".join(lines)


def _changed(model: Mapping[str, Any]) -> list[str]:
    """What was not asked as the manifest says: shots that did not fit, prompts that were cut, by benchmark."""
    found = []
    for benchmark in model["benchmarks"]:
        if text := str(ChangedPrompts.from_record(benchmark)):
            subjects = [row["subject"] for row in benchmark["subjects"] if str(ChangedPrompts.from_record(row))]
            named = f" ({', '.join(subjects[:3])}{f' and {len(subjects) - 3} more' if len(subjects) > 3 else ''})"
            where = named if len(benchmark["subjects"]) > 1 else ""
            found.append(f"{model['model']}: {benchmark['benchmark']}: {text}{where}")
    return found


def failed_lines(failed: Sequence[Mapping[str, Any]]) -> list[str]:
    """What failed and why, units that failed for the same reason on one line."""
    units: dict[str, list[str]] = {}
    for one in failed:
        units.setdefault(one["error"], []).append(one["unit"])
    return [
        f"failed: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {error}"
        for error, names in units.items()
    ]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    out = []
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        out.append("  ".join(cells).rstrip())
        if number == 0:
            out.append("  ".join("─" * w for w in widths))
    return out


def seconds(value: float | None) -> str:
    """``0.42 s``, ``12.3 s``, ``4:05``, ``2:03:20``; a dash for None."""
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    needed = model["peak_device_bytes"] or model.get("needed_bytes")
    return (
        model["model"],
        "; ".join(_accuracy(b, len(model["benchmarks"]) > 1) for b in model["benchmarks"]) or "–",
        "; ".join(_percent(b["macro_acc"]) for b in model["benchmarks"]) or "–",
        f"{model['questions']:,}",
        f"{model['questions_per_s']:.1f}" if model["questions_per_s"] else "–",
        seconds(model["real_s"]),
        seconds(model["user_s"] + model["system_s"]),
        seconds(model["gpu_s"]),
        gib(needed),
        gib(model["peak_rss_bytes"]),
    )


def gib(size: float | None) -> str:
    """Bytes as GiB, MiB below a tenth of one; a dash for none."""
    if not size:
        return "–"
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def _accuracy(benchmark: Mapping[str, Any], named: bool) -> str:
    name = f"{benchmark['benchmark']} " if named else ""
    if benchmark["acc"] is None:
        return f"{name}–"
    return f"{name}{_percent(benchmark['acc'])} ({_percent(benchmark['low'])}–{_percent(benchmark['high'])})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{fixed(100 * value, 1)}%"
