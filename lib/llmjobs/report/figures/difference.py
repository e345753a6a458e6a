"""Differences between models: each pair a line, or a matrix where there are many."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from llmjobs.report.figures import style
from llmjobs.report.figures.naming import name_width, short_names
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
    """Row less column in points; pale where the pair cannot be told apart after Holm's correction.

    The numbers stand in the cells while they can be read.
    """
    count = len(order)
    place = {row: at for at, row in enumerate(order)}
    shades = np.ones((count, count, 4))
    with style.styled():
        figure = style.blank(min(1.2 + 0.3 * count, style.SQUARE_IN))
        axes = figure.subplots()
        for pair in pairs:
            for y, x, sign in ((pair.first, pair.second, 1), (pair.second, pair.first, -1)):
                value, strong = sign * pair.result.difference, pair.distinguishable
                shade = (style.PALE if value > 0 else "#f0d9b5") if strong else "#f3f4f6"
                shades[place[y], place[x]] = to_rgba(shade)
                if count <= style.MOST_NUMBERED:
                    axes.text(
                        place[x] + 0.5,
                        place[y] + 0.5,
                        points(value, sign=True),
                        ha="center",
                        va="center",
                        fontsize=7 if count <= 14 else 5.8,
                        color=style.INK if strong else style.MUTED,
                        fontweight="bold" if strong else "normal",
                    )
        edge = 0.8 if count <= style.MOST_NAMED else 0.0
        axes.pcolormesh(shades, edgecolors="white", linewidth=edge, zorder=0)
        axes.set_xlim(0, count)
        axes.set_ylim(count, 0)
        name_both(axes, [labels[row] for row in order])
        _legend(figure)
    return figure


def _legend(figure: Figure) -> None:
    inks = (style.PALE, "#f0d9b5", "#f3f4f6")
    told = ("row is better", "row is worse", "cannot be told apart")
    patches = [Patch(color=ink) for ink in inks]
    figure.legend(patches, told, loc="outside lower left", ncols=3, handlelength=1.1, handleheight=0.9)


def name_both(axes: Axes, names: Sequence[str]) -> None:
    """Write the same names on both sides of a square; slanted above where they would touch.

    Very many models get their places in the ranking instead of names.
    """
    count = len(names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelcolor=style.INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if count > style.MOST_NAMED:
        ranks = [*range(1, count + 1, max(1, round(count / 100) * 10))]
        axes.set_yticks([rank - 0.5 for rank in ranks], list(map(str, ranks)), fontsize=7.5)
        axes.set_xticks([rank - 0.5 for rank in ranks], list(map(str, ranks)), fontsize=7.5)
        axes.set_ylabel("place of the model in the ranking by accuracy")
        return
    size = 7.5 if count <= style.MOST_NUMBERED else 5.8
    slanted = count > 4 or max(map(name_width, names)) * count > 90
    axes.set_yticks(np.arange(count) + 0.5, short_names(names, 28), fontsize=size)
    axes.set_xticks(np.arange(count) + 0.5, short_names(names, 24), fontsize=size)
    if slanted:
        for label in axes.get_xticklabels():
            label.set(rotation=40 if count <= style.MOST_NUMBERED else 60, ha="left", rotation_mode="anchor")
