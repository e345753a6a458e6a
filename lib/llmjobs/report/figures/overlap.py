"""Shared mistakes: how many models miss a question, which sets of models, and how alike pairs are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from llmjobs.report.figures import style
from llmjobs.report.figures.difference import name_both
from llmjobs.report.figures.naming import short_names
from llmjobs.report.measure.overlap import Overlap
from llmjobs.report.wording import count, decimal

UPSET_SETS, MOST_BARS, SHADES = 22, 21, 20


def missed_by(found: Overlap) -> Figure:
    """Draw questions by how many models miss them (bars), against independence (diamonds)."""
    places = np.arange(len(found.missed_by))
    with style.styled():
        figure = style.blank(2.5)
        axes = figure.subplots()
        axes.bar(places, found.missed_by, 0.62, color=style.BLUE, label="observed")
        axes.plot(
            places,
            found.expected,
            "D",
            color=style.ORANGE,
            ms=5,
            mec="white",
            mew=0.6,
            label="expected, were the models independent within each subject",
        )
        highest = float(max(found.missed_by.max(), found.expected.max()))
        many = len(places) > MOST_BARS
        for place in [] if many else places:
            number = int(found.missed_by[place])
            inside, low = number > 0.16 * highest, found.expected[place] > 0.5 * number
            axes.annotate(
                count(number),
                (place, (0 if low else number) if inside else max(number, found.expected[place])),
                xytext=(0, 4 if low or not inside else -11),
                fontsize=8,
                textcoords="offset points",
                ha="center",
                color="white" if inside else style.INK,
                fontweight="bold",
            )
        step = -(-len(places) // MOST_BARS)
        told = [str(place) for place in places[::step]]
        told[0] = "none"
        if not many:
            told[-1] = f"all {places[-1]}"
        axes.set_xticks(places[::step], told)
        axes.set_xlabel("models that miss the question")
        axes.set_ylabel("questions")
        axes.margins(y=0.14)
        axes.yaxis.set_major_formatter(lambda value, _: count(value))
        style.light_grid(axes, "y")
        figure.legend(loc="outside upper left", ncols=2, handlelength=1.2)
    return figure


def upset(found: Overlap, labels: Sequence[str]) -> Figure:
    """Draw the most frequent sets of models that miss a question together, named by ``labels``."""
    sets = found.combinations[:UPSET_SETS]
    models = len(labels)
    with style.styled():
        figure = style.blank(1.35 + 0.2 * models)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.2, 0.2 * models])
        for x, (members, number) in enumerate(sets):
            whole = len(members) == models
            ink = style.ORANGE if whole else style.BLUE
            upper.bar(x, number, 0.66, color=ink)
            upper.annotate(
                count(number),
                (x, number),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
            inside = sorted(members)
            lower.plot([x] * models, range(models), "o", color="#e3e7eb", ms=4.6)
            lower.plot([x] * len(inside), inside, "-o", color=ink, ms=4.6, linewidth=1.2)
        lower.set_yticks(range(models), short_names(labels, 30), fontsize=7.6)
        lower.set_ylim(models - 0.5, -0.5)
        lower.set_xlim(-0.7, max(len(sets), 8) - 0.3)
        lower.set_xticks([])
        lower.tick_params(length=0, labelcolor=style.INK)
        upper.tick_params(axis="x", length=0)
        upper.set_ylabel("questions")
        upper.margins(y=0.16)
        for spine in (*lower.spines.values(), upper.spines["bottom"]):
            spine.set_visible(False)
    return figure


def likeness(found: Overlap, labels: Sequence[str]) -> Figure:
    """φ of the mistakes below the diagonal, the same-wrong-answer share in percent above it, with their colours."""
    place = {row: at for at, row in enumerate(found.rows)}
    models = len(found.rows)
    values = np.full((models, models), np.nan)
    told: dict[tuple[int, int], str] = {}
    for pair in found.pairs:
        a, b = sorted((place[pair.first], place[pair.second]))
        values[b, a], values[a, b] = pair.errors.phi, pair.same.share
        told[b, a] = decimal(pair.errors.phi)
        told[a, b] = f"{100 * pair.same.share:.0f}%" if pair.same.n else "–"
    shades = ListedColormap(colormaps["Blues"](0.06 + 0.72 * np.linspace(0, 1, SHADES))).with_extremes(bad="#f3f4f6")
    with style.styled():
        figure = style.blank(min(1.5 + 0.32 * models, style.SQUARE_IN))
        axes = figure.subplots()
        known = np.ma.masked_invalid(np.clip(values, 0, 1))
        edge = 0.8 if models <= style.MOST_NAMED else 0.0
        mesh = axes.pcolormesh(known, cmap=shades, vmin=0, vmax=1, edgecolors="white", linewidth=edge)
        if models <= style.MOST_NUMBERED:
            for (y, x), text in told.items():
                ink = "white" if values[y, x] > 0.72 else style.INK
                axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=7.4, color=ink)
        axes.set_xlim(0, models)
        axes.set_ylim(models, 0)
        name_both(axes, labels)
        _legend(figure, axes, mesh)
    return figure


def _legend(figure: Figure, axes: Axes, mesh: Any) -> None:
    """Say what the colours stand for."""
    bar = figure.colorbar(mesh, ax=axes, location="bottom", shrink=0.5, aspect=38, pad=0.02)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0 or less", "0.25 · 25%", "0.5 · 50%", "0.75 · 75%", "1 · 100%"])
    bar.ax.tick_params(labelsize=7, length=0)
    bar.outline.set_visible(False)
    bar.set_label("φ below the diagonal · same wrong answer above it", fontsize=7.5)
