"""Time and memory, alone and against accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llmjobs.report.figures import style
from llmjobs.report.figures.naming import short_names
from llmjobs.report.figures.placing import place_labels
from llmjobs.report.wording import seconds, size

MOST_NAMES = 24
"""Points that are named one by one."""


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


@dataclass(frozen=True)
class Unit:
    """A unit for an axis: its name and how much of the base unit it is."""

    name: str
    factor: float


SECONDS = (Unit("s", 1), Unit("min", 60), Unit("h", 3600))
BYTES = (Unit("B", 1), Unit("KiB", 2**10), Unit("MiB", 2**20), Unit("GiB", 2**30))


def fitting_unit(largest: float, units: Sequence[Unit]) -> Unit:
    """Return the largest unit of which there are two at least."""
    return next((unit for unit in reversed(units) if largest >= 2 * unit.factor), units[0])


def tradeoff(points: Sequence[CostPoint], axis: str, units: Sequence[Unit], chance: float) -> Figure:
    """Accuracy against a cost; the models on the Pareto front are filled and joined by steps."""
    unit = fitting_unit(max(p.cost for p in points), units)
    at = [(p.cost / unit.factor, p) for p in points]
    front = pareto(points)
    with style.styled():
        figure = style.blank(3.0)
        axes = figure.subplots()
        for x, p in at:
            axes.plot([x, x], [p.low, p.high], color=style.PALE, linewidth=1.2, zorder=1)
            on = p in front
            axes.plot([x], [p.accuracy], "o", mfc=style.BLUE if on else "white", mec=style.BLUE, ms=5.2, zorder=3)
        steps = [p.cost / unit.factor for p in front]
        axes.step(steps, [p.accuracy for p in front], where="post", color=style.BLUE, linewidth=0.8)
        if chance:
            _chance_line(axes, chance)
        if max(x for x, _ in at) > 20 * min(x for x, _ in at):
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter("")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.margins(x=0.16, y=0.14)
        if axes.get_xscale() == "linear":
            axes.set_xlim(left=0)
        axes.set_xlabel(f"{axis}, {unit.name}")
        axes.set_ylabel("accuracy")
        style.percent_axis(axes, "y")
        axes.grid(axis="y")
        named = [
            (x, p.accuracy, name)
            for (x, p), name in zip(at, short_names([p.label for p in points], 26), strict=True)
            if len(points) <= MOST_NAMES or p in front
        ]
        place_labels(axes, named[:MOST_NAMES])
        if len(points) > MOST_NAMES:
            style.say(figure, "Named: those on the front.")
    return figure


def _chance_line(axes: Axes, chance: float) -> None:
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


def cost_bars(labels: Sequence[str], parts: Mapping[str, Sequence[float | None]], units: Sequence[Unit]) -> Figure:
    """Draw bars side by side for each model, a kind of time (or memory) a shade; a missing one is said."""
    each = 0.14 + 0.13 * len(parts)
    most = int((style.ROOM_IN - 0.95) / (0.75 * each))
    total, labels = len(labels), labels[:most]
    parts = {name: values[:most] for name, values in parts.items()}
    inks = [style.INK, style.BLUE, style.ORANGE, style.GREEN][: len(parts)]
    wide = 0.8 / len(parts)
    largest = max((v for values in parts.values() for v in values if v is not None), default=1.0)
    with style.styled():
        unit = fitting_unit(largest, units)
        figure = style.blank(0.85 + len(labels) * each * (1.0 if len(labels) <= 7 else 0.75))
        axes = figure.subplots()
        for series, (name, values) in enumerate(parts.items()):
            for row, value in enumerate(values):
                y = len(labels) - 1 - row + 0.4 - wide * (series + 0.5)
                text = "not measured" if value is None else seconds(value) if units is SECONDS else size(value)
                x = (value or 0.0) / unit.factor
                axes.barh(y, x, wide * 0.86, color=inks[series], label=name if row == 0 else None)
                axes.annotate(
                    text,
                    (x, y),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7,
                    color=style.MUTED,
                )
        axes.set_yticks(range(len(labels)), short_names(labels)[::-1])
        axes.tick_params(axis="y", labelcolor=style.INK)
        axes.set_ylim(-0.55, len(labels) - 0.45)
        axes.set_xlim(0, largest / unit.factor * 1.18)
        more = "" if len(labels) == total else f"The first {len(labels)} of {total:,}."
        axes.set_xlabel(f"{unit.name}\n{more}" if more else unit.name)
        style.light_grid(axes)
        figure.legend(loc="outside upper left", ncols=len(parts), handlelength=1.0)
    return figure
