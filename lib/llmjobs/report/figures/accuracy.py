"""Leaderboard, heat map by subject, and calibration."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llmjobs.report.figures import style
from llmjobs.report.figures.naming import short_names
from llmjobs.report.measure.accuracy import BenchmarkAccuracy
from llmjobs.report.wording import percent
from llmjobs.statistics.calibration import Calibration

Named = Sequence[tuple[str, Calibration]]


def leaderboard(found: BenchmarkAccuracy, labels: Sequence[str]) -> Figure:
    """Draw a line a model, best on top: micro accuracy with its interval, macro as a ring, chance named.

    ``labels`` are in the order of ``found.models``.
    """
    count = len(found.models)
    chance = found.benchmark.chance
    with style.styled():
        figure = style.blank(0.75 + 0.24 * count)
        axes = figure.subplots()
        for place, model in enumerate(found.models):
            y = count - 1 - place
            value, low, high = model.interval
            if not model.n:
                axes.text(0.01, y, "no scored answer", va="center", color=style.MUTED, fontsize=8)
                continue
            axes.plot([low, high], [y, y], color=style.BLUE, linewidth=1.4, solid_capstyle="butt")
            axes.plot([value], [y], "o", color=style.BLUE, markersize=4.5)
            axes.plot([model.macro.value], [y], "o", mfc="none", mec=style.INK, markersize=7, mew=0.7)
            axes.text(
                1.015,
                y,
                percent(value),
                va="center",
                ha="left",
                fontsize=8.5,
                fontweight="bold",
                transform=axes.get_yaxis_transform(),
            )
        axes.set_yticks(range(count), short_names(labels)[::-1])
        axes.tick_params(axis="y", labelcolor=style.INK)
        axes.set_ylim(-0.7, count - 0.3)
        _span(axes, found, chance)
        style.percent_axis(axes)
        style.light_grid(axes)
    return figure


def _span(axes: Axes, found: BenchmarkAccuracy, chance: float) -> None:
    """Limits that hold every interval and the chance line, and the chance line itself."""
    ends = [end for model in found.models if model.n for end in model.interval[1:]] or [0.0, 1.0]
    low, high = min([*ends, chance or 1.0]), max([*ends, chance])
    margin = max(0.02, 0.06 * (high - low))
    axes.set_xlim(max(0.0, low - margin) if low > 0.15 else -0.01, min(1.01, high + margin))
    if chance:
        axes.axvline(chance, color=style.ORANGE, linewidth=1.1, linestyle=(0, (4, 2)))
        axes.annotate(
            f"chance {percent(chance, 0)}",
            (chance, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            color="#a8620a",
            fontsize=7.5,
        )


def heat_map(found: BenchmarkAccuracy, labels: Sequence[str], subjects: slice) -> Figure:
    """Accuracy by subject (rows) and model (columns); the number stands in every cell."""
    names = found.subjects[subjects]
    order = [model.row for model in found.models]
    table = found.by_subject[order][:, subjects].T
    rows, columns = table.shape
    slanted = columns > 4 or max(map(len, labels)) * columns > 80
    cells = colormaps[style.SEQUENCE]
    with style.styled():
        figure = style.blank(min(style.ROOM_IN, 0.19 * rows + (1.5 if slanted else 0.55)))
        axes = figure.subplots()
        shown = np.ma.masked_invalid(table)
        axes.pcolormesh(shown, cmap=cells, vmin=0, vmax=1, edgecolors="white", linewidth=0.8)
        for y, x in np.argwhere(~np.isnan(table)):
            value = float(table[y, x])
            ink = "white" if value < 0.55 else style.INK
            axes.text(x + 0.5, y + 0.5, f"{100 * value:.0f}", ha="center", va="center", color=ink, fontsize=7.2)
        sizes = found.subject_sizes[subjects]
        shown_names = short_names([name.replace("_", " ") for name in names], 38)
        axes.set_yticks(
            np.arange(rows) + 0.5,
            [f"{name}  ({size})" for name, size in zip(shown_names, sizes, strict=True)],
            fontsize=7.5,
        )
        axes.invert_yaxis()
        axes.xaxis.tick_top()
        axes.set_xticks(np.arange(columns) + 0.5, short_names(labels, 28), fontsize=7.5)
        if slanted:
            for label in axes.get_xticklabels():
                label.set(rotation=40, ha="left", rotation_mode="anchor")
        axes.tick_params(length=0, labelcolor=style.INK)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def reliability(models: Named) -> Figure:
    """Draw small multiples: how often a model is right against how sure it is."""
    columns = min(4, max(len(models), 2))
    rows = -(-len(models) // columns)
    names = short_names([label for label, _ in models], 22)
    with style.styled():
        figure = style.blank(0.35 + 1.55 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(models):
                axes.set_visible(False)
                continue
            found = models[place][1]
            axes.plot([0, 1], [0, 1], color=style.FAINT, linewidth=0.8, linestyle=(0, (3, 2)))
            largest = max(found.bin_count)
            sizes = [6 + 60 * n / largest for n in found.bin_count]
            axes.plot(found.bin_confidence, found.bin_accuracy, color=style.BLUE, linewidth=0.9)
            axes.scatter(found.bin_confidence, found.bin_accuracy, s=sizes, color=style.BLUE, linewidth=0, zorder=3)
            axes.set_title(names[place], fontsize=8)
            axes.text(
                0.97,
                0.05,
                f"ECE {found.ece:.3f}",
                transform=axes.transAxes,
                ha="right",
                fontsize=7.5,
                color=style.MUTED,
            )
            axes.set_xlim(0, 1.02)
            axes.set_ylim(0, 1.02)
            axes.set_xticks([0, 0.5, 1], ["0", "50", "100"])
            axes.set_yticks([0, 0.5, 1], ["0", "50", "100"])
        figure.supxlabel("probability given to the chosen answer, percent", fontsize=8, color=style.MUTED)
        figure.supylabel("right, percent", fontsize=8, color=style.MUTED)
    return figure
