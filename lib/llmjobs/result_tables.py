"""The summaries of a run as flat rows, one per line of the terminal's table; for tables in Python."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Row = dict[str, Any]
Part = Mapping[str, Any]


def rows_of(job: str, part: Part) -> list[Row]:
    """Rows of a job's part of ``summary.json``; times in seconds, sizes in bytes, None if nothing was measured."""
    return list(ROWS[job](part))


def _eval(part: Part) -> Iterator[Row]:
    for model in part.get("models", ()):
        times = {key: model[key] for key in ("questions_per_s", "real_s", "gpu_s")}
        for found in model["benchmarks"]:
            figures = {key: found[key] for key in ("benchmark", "n", "acc", "low", "high", "macro_acc")}
            yield {"model": model["model"], **figures, **times}


MEDIANS = (
    "load_s", "real_s", "user_s", "gpu_s", "ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s", "questions_per_s",
    "weight_bytes", "needed_bytes", "peak_rss_bytes", "peak_device_bytes",
)  # fmt: skip


def _matrix(part: Part) -> Iterator[Row]:
    for cell in part.get("cells", ()):
        measures, accuracy = cell.get("measures") or {}, cell.get("accuracy") or {}
        yield {
            **{key: cell[key] for key in ("model", "row", "status", "reason")},
            **{key: accuracy.get(key) for key in ("n", "acc", "low", "high")},
            **{key: (measures.get(key) or {}).get("median") for key in MEDIANS},
        }


def _converse(part: Part) -> Iterator[Row]:
    figures = ("strategy", "history", "context", "n", "acc", "low", "high", "errors", "tokens_sent", "ttft_s")
    for group in part.get("models", ()):
        for memory in group["memories"]:
            yield {"model": group["model"], "set": group["set"], **{key: memory[key] for key in figures}}


def _mtbench(part: Part) -> Iterator[Row]:
    for found in part.get("scores", ()):
        yield {key: found[key] for key in ("judge", "model", "score", "low", "high", "n", "unread")}


ROWS: dict[str, Callable[[Part], Iterator[Row]]] = {
    "eval": _eval,
    "matrix": _matrix,
    "converse": _converse,
    "mtbench": _mtbench,
}
"""Job → its rows, in the order in which a manifest's jobs run."""
