"""Rows of ``mtbench.csv``: mean ratings of every judge and agent, by turn and by category, and their differences."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmjobs.report.study import RawRun

MTBENCH = ("run", "judge", "agent", "less", "turn", "category", "n", "unread", "score", "low", "high", "p", "p_holm")
"""``less`` names the second agent of a difference: ``score`` is the first one's mean less the second one's."""


def mtbench_rows(runs: Sequence[RawRun]) -> Iterable[Sequence[str | int | float | None]]:
    """Yield a row for each mean (over all, by turn, by category), then one for each two agents of a judge."""
    for run in runs:
        part = run.summary.get("mtbench")
        if not isinstance(part, Mapping):
            continue
        for row in part.get("scores") or ():
            who = (run.path.name, row["judge"], row["model"], "")
            yield (*who, "", "", *_figures(row))
            for one in row["by_turn"]:
                yield (*who, one["turn"], "", *_figures(one))
            for one in row["by_category"]:
                yield (*who, "", one["category"], *_figures(one))
        for row in part.get("differences") or ():
            yield (
                run.path.name, row["judge"], row["first"], row["second"], "", "", row["n"], None, row["difference"],
                row["low"], row["high"], row["p"], row["p_holm"],
            )  # fmt: skip


def _figures(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row["n"], row["unread"], row["score"], row["low"], row["high"], None, None)
