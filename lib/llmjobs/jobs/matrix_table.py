"""The grid as it stands on the terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmjobs.jobs.eval_table import GIB, seconds, table

DASH = "–"
Show = Callable[[float | None], str]


def render_matrix(part: Mapping[str, Any]) -> str:
    """The grid, why cells have no figures, which answers change, and what the columns mean."""
    cells = part["cells"]
    several = len({cell["model"] for cell in cells}) > 1
    names = {cell["cell"]: f"{cell['model']} {cell['row']}" if several else cell["row"] for cell in cells}
    done = [cell for cell in cells if cell.get("measures")]
    lines = table([HEADER, *(_row(cell, names[cell["cell"]]) for cell in done)]) if done else []
    for cell in cells:
        if cell["reason"]:
            lines.append(f"{names[cell['cell']]}: {cell['status']}: {cell['reason']}")
    lines += [f"{names[cell['cell']]}: the repetitions gave different answers" for cell in done if _differs(cell)]
    lines += [f"{names[cell['cell']]}: {remark}" for cell in done for remark in cell["remarks"]]
    lines += [_flip(one, several) for one in part["flips"]]
    lines += _nulls(done)
    if done:
        counts = sorted({cell["repetitions"] for cell in done})
        lines.append(
            f"Medians of {' or '.join(map(str, counts))} repetitions. real and CPU are those of the whole process, as "
            "'time' has them; CPU is user + system time of all threads and passes real time with several."
        )
    return "\n".join(lines)


HEADER = (
    "cell", "weights", "load", "real", "CPU", "GPU", "first token", "prefill t/s", "decode t/s",
    "questions/s", "accuracy (95% interval)", "memory", "J/1000 q",
)  # fmt: skip


def _row(cell: Mapping[str, Any], name: str) -> tuple[str, ...]:
    measures = cell["measures"]

    def get(key: str) -> float | None:
        return measures[key]["median"] if measures.get(key) else None

    user, system = get("user_s") or 0.0, get("system_s") or 0.0
    return (
        f"{name} ({cell['dtype']})",
        gib(get("weight_bytes")),
        seconds(get("load_s")),
        _spread(measures["real_s"]),
        seconds(user + system),
        seconds(get("gpu_s")),
        seconds(get("ttft_s")),
        _number(get("prefill_tokens_per_s")),
        _number(get("decode_tokens_per_s")),
        _number(get("questions_per_s")),
        _accuracy(cell["accuracy"]),
        gib(get("peak_device_bytes") or get("needed_bytes") or get("peak_rss_bytes")),
        _number(get("joules_per_1000_questions")),
    )


def _spread(value: Mapping[str, float]) -> str:
    if value["n"] < 2:
        return seconds(value["median"])
    return f"{seconds(value['median'])} ({value['low']:.1f}–{value['high']:.1f})"


def _accuracy(found: Mapping[str, Any]) -> str:
    if found["acc"] is None:
        return DASH
    return f"{found['acc']:.1%} ({found['low']:.1%}–{found['high']:.1%})"


def _differs(cell: Mapping[str, Any]) -> bool:
    return not cell["repetitions_agree"]


def _flip(flip: Mapping[str, Any], several: bool) -> str:
    model = f"{flip['model']} " if several else ""
    return (
        f"{model}{flip['cell']} against {flip['against']}: {flip['changed']} of {flip['n']} answers are others "
        f"({flip['lost']} lost, {flip['gained']} gained, {100 * flip['difference']:+.1f} points, p = {flip['p']:.3f})"
    )


def _nulls(done: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each reason that figures are missing."""
    reasons: dict[str, dict[str, None]] = {}
    for cell in done:
        for name, why in cell["reasons"].items():
            reasons.setdefault(f"{name} {DASH}: {why}", {})[cell["row"]] = None
    return [line if len(rows) == len(done) else f"{', '.join(rows)}: {line}" for line, rows in reasons.items()]


def gib(size: float | None) -> str:
    """Bytes as GiB, MiB below a tenth of one."""
    if size is None:
        return DASH
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def _number(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
