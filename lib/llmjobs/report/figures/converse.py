"""Accuracy by distance, and tokens and time as a conversation grows; a line a memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llmjobs.report.figures import style
from llmjobs.report.wording import count

Values = Mapping[str, Any]
COLOURS = {
    "none": style.FAINT,
    "full": style.INK,
    "window": style.BLUE,
    "summary": style.ORANGE,
    "retrieve": style.GREEN,
    "hybrid": style.PURPLE,
}


def _panels(memories: Sequence[Values]) -> list[tuple[str, list[Values]]]:
    """The memories of each context size, beside those without one."""
    free = [memory for memory in memories if memory["context"] is None]
    sizes = sorted({memory["context"] for memory in memories if memory["context"]})
    panels = [(f"{count(size)} tokens", [*free, *(m for m in memories if m["context"] == size)]) for size in sizes]
    return panels or [("", free)]


def pooled(memory: Values) -> dict[str, tuple[int, int]]:
    """Right answers and questions by distance, pooled by doublings: 1, 2 to 3, 4 to 7 and on."""
    found: dict[int, tuple[int, int]] = {}
    for row in memory["by_distance"]:
        start = 1 << (int(row["distance"]).bit_length() - 1)
        right, n = found.get(start, (0, 0))
        found[start] = (right + row["correct"], n + row["n"])
    return {str(start) if start == 1 else f"{start} to {2 * start - 1}": found[start] for start in sorted(found)}


def distance_plot(memories: Sequence[Values]) -> Figure:
    """Shares of right answers by distance, a panel a context size; memories without one stand in each."""
    panels = _panels(memories)
    names = max((list(pooled(memory)) for memory in memories), key=len)
    with style.styled():
        figure = style.blank(2.6)
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, members) in zip(grid, panels, strict=True):
            for memory in members:
                kept = {name: right / n for name, (right, n) in pooled(memory).items() if n}
                _line(axes, memory, [names.index(name) for name in kept], list(kept.values()))
            axes.set_title(title)
            axes.set_xticks(range(len(names)), names)
            axes.set_xlabel("turns between telling and asking")
            axes.set_ylim(-0.03, 1.05)
            style.percent_axis(axes, "y")
            axes.grid(axis="y")
        grid[0].set_ylabel("right")
        _legend(figure, grid)
    return figure


def growth_plot(memories: Sequence[Values]) -> Figure:
    """Tokens sent and seconds to the first token, turn by turn, at the largest context."""
    largest = max((memory["context"] for memory in memories if memory["context"]), default=None)
    shown = [memory for memory in memories if memory["context"] in (None, largest)]
    with style.styled():
        figure = style.blank(2.5)
        grid = figure.subplots(1, 2)
        for axes, key, label in zip(grid, ("tokens_sent", "ttft_s"), ("tokens sent", "first token, s"), strict=True):
            for memory in shown:
                rows = [row for row in memory["by_turn"] if row[key] is not None]
                _line(axes, memory, [row["turn"] for row in rows], [row[key] for row in rows], marker="")
            axes.set_xlabel("turn")
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            axes.grid(axis="y")
        _legend(figure, grid)
    return figure


def _line(axes: Axes, memory: Values, x: Sequence[float], y: Sequence[float], marker: str = "o") -> None:
    name = memory["strategy"]
    dashes = "--" if name in ("none", "full") else "-"
    label = "history off" if name == "none" else name
    axes.plot(x, y, dashes, marker=marker, markersize=3.2, color=COLOURS.get(name, style.MUTED), label=label)


def _legend(figure: Figure, grid: Sequence[Axes]) -> None:
    handles: dict[str, Any] = {}
    for axes in grid:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper left",
        ncols=len(handles),
        handlelength=1.6,
    )
