"""Time and memory, alone and against accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from llmjobs.report.figures import style
from llmjobs.report.figures.accuracy import shortened
from llmjobs.report.figures.placing import place_labels
from llmjobs.report.wording import seconds, size


@dataclass(frozen=True)
class CostPoint:
    """A model on the plane of cost and accuracy."""

    label: str
    cost: float
    accuracy: float
    low: float
    high: float


def pareto(points: Sequence[CostPoint]) -> list[CostPoint]:
    """Return the points that no other one beats in cost and accuracy at once, cheapest first."""
    front: list[CostPoint] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def tradeoff(points: Sequence[CostPoint], axis: str, chance: float, logarithmic: bool) -> Figure:
    """Accuracy against a cost; the models on the Pareto front are filled and joined by steps."""
    with style.styled():
        figure = style.blank(3.1)
        axes = figure.subplots()
        front = pareto(points)
        for point in points:
            axes.plot([point.cost] * 2, [point.low, point.high], color=style.PALE, linewidth=1.2, zorder=1)
        others = [point for point in points if point not in front]
        axes.plot(
            [p.cost for p in others], [p.accuracy for p in others], "o", mfc="white", mec=style.BLUE, ms=5
        )
        axes.plot(
            [p.cost for p in front], [p.accuracy for p in front], "o", color=style.BLUE, ms=5.5, zorder=3
        )
        axes.step(
            [p.cost for p in front],
            [p.accuracy for p in front],
            where="post",
            color=style.BLUE,
            linewidth=0.8,
        )
        if chance:
            axes.axhline(chance, color=style.ORANGE, linewidth=1, linestyle=(0, (4, 2)))
            axes.annotate(
                "chance",
                (1.0, chance),
                xycoords=("axes fraction", "data"),
                xytext=(-2, 3),
                textcoords="offset points",
                ha="right",
                color="#a8620a",
                fontsize=7.5,
            )
        if logarithmic:
            axes.set_xscale("log")
        else:
            axes.set_xlim(left=0)
        axes.margins(x=0.16, y=0.14)
        axes.set_xlabel(axis)
        axes.set_ylabel("accuracy")
        axes.xaxis.set_minor_formatter("")
        axes.xaxis.set_major_formatter(
            lambda value, _: seconds_short(value) if "time" in axis else size(value)
        )
        style.percent_axis(axes, "y")
        axes.grid(axis="y")
        place_labels(axes, [(p.cost, p.accuracy, shortened(p.label, 26)) for p in points])
    return figure


def seconds_short(value: float) -> str:
    """A tick's duration: ``0.5 s``, ``30 s``, ``5 min``, ``2 h``."""
    if value < 60:
        return f"{value:g} s"
    return f"{value / 60:.3g} min" if value < 3600 else f"{value / 3600:.3g} h"


def cost_bars(labels: Sequence[str], parts: dict[str, Sequence[float | None]], time: bool) -> Figure:
    """Horizontal bars side by side for each model: one kind of time (or memory) a shade; a missing one is said."""
    inks = [style.INK, style.BLUE, style.ORANGE, style.GREEN][: len(parts)]
    wide = 0.8 / len(parts)
    largest = max((v for values in parts.values() for v in values if v is not None), default=1.0)
    with style.styled():
        figure = style.blank(0.7 + len(labels) * (0.14 + 0.13 * len(parts)))
        axes = figure.subplots()
        for series, (name, values) in enumerate(parts.items()):
            for row, value in enumerate(values):
                y = len(labels) - 1 - row + 0.4 - wide * (series + 0.5)
                text = "not measured" if value is None else seconds(value) if time else size(value)
                axes.barh(
                    y, value or 0.0, wide * 0.86, color=inks[series], label=name if row == 0 else None
                )
                axes.annotate(
                    text,
                    (value or 0.0, y),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7,
                    color=style.MUTED,
                )
        axes.set_yticks(range(len(labels)), [shortened(label) for label in reversed(labels)])
        axes.tick_params(axis="y", labelcolor=style.INK)
        axes.set_ylim(-0.55, len(labels) - 0.45)
        axes.set_xlim(0, largest * 1.18)
        axes.xaxis.set_major_formatter(lambda value, _: seconds_short(value) if time else size(value))
        style.light_grid(axes)
        figure.legend(loc="outside upper left", ncols=len(parts), handlelength=1.0)
    return figure
