"""Differences between models: each pair a line, or a matrix where there are many."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llmjobs.report.figures import style
from llmjobs.report.figures.naming import short_names
from llmjobs.report.measure.pairs import Pair
from llmjobs.report.wording import points


def forest(pairs: Sequence[Pair], labels: Sequence[str]) -> Figure:
    """Each pair's difference with its interval; filled where it stands after Holm's correction."""
    short = short_names(labels, 24)
    with style.styled():
        figure = style.blank(0.6 + 0.21 * len(pairs))
        axes = figure.subplots()
        for place, pair in enumerate(pairs):
            y = len(pairs) - 1 - place
            result = pair.result
            ink = style.BLUE if pair.distinguishable else style.FAINT
            axes.plot([100 * result.low, 100 * result.high], [y, y], color=ink, linewidth=1.3)
            fill = style.BLUE if pair.distinguishable else "white"
            axes.plot([100 * result.difference], [y], "o", mfc=fill, mec=ink, ms=4.5)
        axes.axvline(0, color=style.INK, linewidth=0.7)
        names = [f"{short[p.first]} – {short[p.second]}" for p in reversed(pairs)]
        axes.set_yticks(range(len(pairs)), names, fontsize=7.6)
        axes.tick_params(axis="y", labelcolor=style.INK)
        axes.set_ylim(-0.7, len(pairs) - 0.3)
        axes.set_xlabel("difference in accuracy, percentage points")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
        style.light_grid(axes)
    return figure


def difference_matrix(pairs: Sequence[Pair], labels: Sequence[str], order: Sequence[int]) -> Figure:
    """Row less column in points; pale where the pair cannot be told apart after Holm's correction."""
    count = len(order)
    place = {row: at for at, row in enumerate(order)}
    with style.styled():
        figure = style.blank(1.2 + 0.3 * count)
        axes = figure.subplots()
        for pair in pairs:
            for y, x, sign in ((pair.first, pair.second, 1), (pair.second, pair.first, -1)):
                value = sign * pair.result.difference
                strong = pair.distinguishable
                back = (style.PALE if value > 0 else "#f0d9b5") if strong else "#f3f4f6"
                axes.fill_between([place[x], place[x] + 1], place[y], place[y] + 1, color=back, linewidth=0)
                axes.text(
                    place[x] + 0.5,
                    place[y] + 0.5,
                    points(value, sign=True),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color=style.INK if strong else style.MUTED,
                    fontweight="bold" if strong else "normal",
                )
        axes.set_xlim(0, count)
        axes.set_ylim(count, 0)
        name_both(axes, [labels[row] for row in order])
    return figure


def name_both(axes: Axes, names: Sequence[str]) -> None:
    """Write the same names on both sides of a square; slanted above where they would touch."""
    count = len(names)
    slanted = count > 4 or max(map(len, names)) * count > 90
    axes.set_yticks(np.arange(count) + 0.5, short_names(names, 28), fontsize=7.5)
    axes.xaxis.tick_top()
    axes.set_xticks(np.arange(count) + 0.5, short_names(names, 24), fontsize=7.5)
    if slanted:
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0, labelcolor=style.INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
