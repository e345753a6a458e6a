"""The plan as it stands on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmjobs.hub.progress import size_text
from llmjobs.jobs.eval_table import seconds, table
from llmjobs.jobs.matrix_table import DASH, gib

MOST_UNITS = 12
"""Units of a model that are listed without being asked for."""


def render_plan(plan: Mapping[str, Any], *, units: bool) -> str:
    """A row a model, what stands in the way, the units, the total."""
    models = plan["models"]
    rows = [_row(model) for model in models]
    lines = table([HEADER, *rows])
    for model in models:
        lines += [f"{model['model']}: {line}" for line in _told(model)]
    for model in models:
        known = [unit for unit in model["units"] if unit["tokens"] or unit["error"]]
        if known and (units or len(known) <= MOST_UNITS):
            lines += ["", *_units(model, known)]
        elif known:
            lines.append(f"{model['model']}: {len(known)} units; --units lists them")
    lines += [f"note: {line}" for line in plan["notes"]]
    lines.append("memory is what must stay, and what 'fits' judges by; resident counts file pages too.")
    missing = sum(model["missing_bytes"] or 0 for model in models)
    times = [model["time_s"] for model in models if model["time_s"] is not None]
    total = f"about {seconds(sum(times))}" if times else "time unknown"
    lines.append(f"in all: {total}, {size_text(missing)} to fetch; nothing was run")
    return "\n".join(lines)


HEADER = (
    "model", "runs on", "download", "weights", "key-value cache", "memory", "resident", "fits", "questions",
    "tokens", "computed", "time",
)  # fmt: skip


def _row(model: Mapping[str, Any]) -> tuple[str, ...]:
    counts = [unit["tokens"] for unit in model["units"] if unit["tokens"]]

    def add(name: str) -> str:
        return f"{sum(one[name] for one in counts):,}" if counts else DASH

    precision = model["dtype"] if model["quantization"] == "none" else f"{model['quantization']}, {model['dtype']}"
    return (
        model["model"],
        f"{model['device']} ({precision})" if model["device"] else DASH,
        _download(model),
        gib(model["weight_bytes"]),
        gib(model["cache_bytes"]),
        gib(model["needed_bytes"]),
        gib(model["peak_bytes"]),
        {True: "yes", False: "NO", None: DASH}[model["fits"]],
        add("questions"),
        add("total_tokens"),
        add("distinct_tokens"),
        seconds(model["time_s"]) if counts else DASH,
    )


def _download(model: Mapping[str, Any]) -> str:
    if model["download_bytes"] is None:
        return DASH
    gated = ", gated" if model["gated"] else ""
    if not model["missing_bytes"]:
        return f"cached{gated}"
    return f"{size_text(model['missing_bytes'])}{gated}"


def _told(model: Mapping[str, Any]) -> list[str]:
    lines = [model["error"]] if model["error"] else []
    lines = [line.removeprefix(f"{model['model']}: ") for line in lines]
    if model["fits"] is False:
        others = [f"{name} needs {gib(size)}" for name, size in model["fits_with"].items()]
        remedy = "; ".join(others) or "no quantization makes it fit; take a smaller model"
        lines.append(f"does not fit: {gib(model['needed_bytes'])} of {gib(model['room_bytes'])}; {remedy}")
    lines += model["notes"]
    return lines + [f"{unit['key']}: {unit['error']}" for unit in model["units"] if unit["error"]]


def _units(model: Mapping[str, Any], units: Sequence[Mapping[str, Any]]) -> list[str]:
    head = (f"{model['model']}: unit", "questions", "tokens", "computed", "cached at most", "time")
    rows = []
    for unit in units:
        counts = unit["tokens"]
        if counts is None:
            rows.append((unit["key"], *[DASH] * 5))
            continue
        numbers = [f"{counts[n]:,}" for n in ("questions", "total_tokens", "distinct_tokens", "peak_cache_tokens")]
        rows.append((unit["key"], *numbers, seconds(unit["time_s"])))
    return table([head, *rows])
