"""Leaderboard, heat map by subject, and calibration."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from llmjobs.report.figures import style
from llmjobs.report.figures.naming import name_width, short_names
from llmjobs.report.measure.accuracy import BenchmarkAccuracy, ModelAccuracy
from llmjobs.report.wording import percent
from llmjobs.statistics.calibration import Calibration

MOST_LINES, MOST_COLUMNS, MOST_DOTS = 20, 26, 3
"""Lines of the leaderboard, columns of the heat map, and models whose subjects get dots with intervals."""
Named = Sequence[tuple[str, Calibration]]


def leaderboard(found: BenchmarkAccuracy, labels: Sequence[str]) -> Figure:
    """Draw a line a model, best on top: micro accuracy with its interval, macro as a ring, chance named.

    ``labels`` are in the order of ``found.models``; of a long ranking the first and the last are drawn.
    """
    lines = style.ends(len(found.models), MOST_LINES, 4)
    count = len(lines)
    with style.styled():
        figure = style.blank(0.75 + (0.24 if count <= 12 else 0.19) * count)
        axes = figure.subplots()
        names = []
        short = short_names(labels)
        for y, place in zip(range(count - 1, -1, -1), lines, strict=True):
            if place is None:
                names.append(f"… {len(labels) - count + 1:,} more models …")
                continue
            names.append(short[place])
            _line(axes, y, found.models[place])
        axes.set_yticks(range(count), names[::-1])
        axes.tick_params(axis="y", labelcolor=style.INK)
        axes.set_ylim(-0.7, count - 0.3)
        _span(axes, found, found.benchmark.chance)
        style.percent_axis(axes)
        style.light_grid(axes)
        if None in lines:
            style.say(figure, "The models between are in the accuracy table and in summary.csv.")
    return figure


def _line(axes: Axes, y: float, model: ModelAccuracy) -> None:
    """Draw one model of the leaderboard; markers at the edge of the plot are drawn whole."""
    value, low, high = model.interval
    if not model.n:
        axes.text(0.01, y, "no scored answer", va="center", color=style.MUTED, fontsize=8)
        return
    axes.plot([low, high], [y, y], color=style.BLUE, linewidth=1.4, solid_capstyle="butt")
    axes.plot([value], [y], "o", color=style.BLUE, markersize=4.5, clip_on=False)
    axes.plot([model.macro.value], [y], "o", mfc="none", mec=style.INK, markersize=7, mew=0.7, clip_on=False)
    axes.text(
        1.025,
        y,
        percent(value),
        va="center",
        ha="left",
        fontsize=8.5,
        fontweight="bold",
        transform=axes.get_yaxis_transform(),
    )


def _span(axes: Axes, found: BenchmarkAccuracy, chance: float) -> None:
    """Limits that hold every interval and the chance line, and the chance line itself."""
    scored = [model for model in found.models if model.n]
    ends = [end for model in scored for end in (*model.interval[1:], model.macro.value)] or [0.0, 1.0]
    ends = [end for end in ends if not np.isnan(end)] or [0.0, 1.0]
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
    """Accuracy by subject (rows) and model (columns); the number stands in every cell.

    A few models get a dot and an interval for every subject instead, many models are cut to the first ones.
    """
    names = [name.replace("_", " ") for name in found.subjects[subjects]]
    if len(found.models) <= MOST_DOTS:
        return _subject_dots(found, labels, subjects, names)
    order = [model.row for model in found.models][:MOST_COLUMNS]
    table = found.by_subject[order][:, subjects].T
    rows, columns = table.shape
    shown = labels[:columns]
    slanted = columns > 4 or max(map(name_width, shown)) * columns > 80
    with style.styled():
        head = 1.5 if slanted else 0.55
        row = min(0.19, (style.ROOM_IN - head) / rows)
        figure = style.blank(row * rows + head)
        axes = figure.subplots()
        masked = np.ma.masked_invalid(table)
        cells = colormaps[style.SEQUENCE]
        axes.pcolormesh(masked, cmap=cells, vmin=0, vmax=1, edgecolors="white", linewidth=0.8)
        for y, x in np.argwhere(~np.isnan(table)):
            value = float(table[y, x])
            ink = "white" if value < 0.55 else style.INK
            size = min(7.2 if columns <= 16 else 6.0, 40 * row)
            axes.text(x + 0.5, y + 0.5, f"{100 * value:.0f}", ha="center", va="center", color=ink, fontsize=size)
        _name_subjects(axes, found, subjects, names, 0.5, row)
        axes.xaxis.tick_top()
        axes.set_xticks(np.arange(columns) + 0.5, short_names(shown, 28), fontsize=7.5)
        if slanted:
            for label in axes.get_xticklabels():
                label.set(rotation=40, ha="left", rotation_mode="anchor")
        axes.tick_params(length=0, labelcolor=style.INK)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if columns < len(labels):
            style.say(figure, style.left_out(columns, len(labels), "summary.csv"))
    return figure


def _name_subjects(
    axes: Axes, found: BenchmarkAccuracy, subjects: slice, names: Sequence[str], offset: float, row_in: float
) -> None:
    sizes = found.subject_sizes[subjects]
    told = [f"{name}  ({size:,})" for name, size in zip(short_names(names, 38), sizes, strict=True)]
    axes.set_yticks(np.arange(len(names)) + offset, told, fontsize=min(7.5, 48 * row_in))
    axes.invert_yaxis()


def _subject_dots(found: BenchmarkAccuracy, labels: Sequence[str], subjects: slice, names: Sequence[str]) -> Figure:
    """A dot with Wilson's 95% interval for every subject, a colour a model."""
    inks = (style.BLUE, style.ORANGE, style.GREEN)
    count = len(found.models)
    with style.styled():
        row = min(0.19 if count < 3 else 0.22, (style.ROOM_IN - 0.55) / len(names))
        figure = style.blank(0.55 + row * len(names))
        axes = figure.subplots()
        for place, model in enumerate(found.models):
            shift = (place - (count - 1) / 2) * 0.26
            for y, subject in enumerate(range(len(found.subjects))[subjects]):
                value, low, high = found.subject_interval(model.row, subject)
                axes.plot([low, high], [y + shift] * 2, color=inks[place], linewidth=1.1, alpha=0.75)
                axes.plot([value], [y + shift], "o", color=inks[place], ms=3.6, clip_on=False)
        _name_subjects(axes, found, subjects, names, 0.0, row)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.tick_params(axis="y", labelcolor=style.INK)
        style.percent_axis(axes)
        style.light_grid(axes)
        if found.benchmark.chance:
            axes.axvline(found.benchmark.chance, color=style.ORANGE, linewidth=1, linestyle=(0, (4, 2)))
            axes.annotate(
                "chance",
                (found.benchmark.chance, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 2),
                textcoords="offset points",
                color="#a8620a",
                fontsize=7.5,
            )
        if count > 1:
            handles = [Line2D([], [], color=ink, marker="o", ms=3.6) for ink in inks[:count]]
            figure.legend(handles, short_names(labels, 30), loc="outside upper right", ncols=count, handlelength=1.4)
    return figure


def reliability(models: Named) -> Figure:
    """Draw small multiples: how often a model is right against how sure it is."""
    total, models = len(models), models[: style.MOST_PANELS]
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
            axes.scatter(
                found.bin_confidence,
                found.bin_accuracy,
                s=sizes,
                color=style.BLUE,
                linewidth=0,
                zorder=3,
                clip_on=False,
            )
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
        more = style.left_out(len(models), total, "calibration.csv")
        told = "probability given to the chosen answer, percent" + (f"\n{more}" if more else "")
        figure.supxlabel(told, fontsize=8, color=style.MUTED)
        figure.supylabel("right, percent", fontsize=8, color=style.MUTED)
    return figure
