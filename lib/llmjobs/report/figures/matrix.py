"""The timing matrix in pictures: bars, accuracy against time, memory against speed."""

from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure as Plot

from llmjobs.report.blocks import Figure
from llmjobs.report.figures import cost as plots
from llmjobs.report.figures import style
from llmjobs.report.figures.naming import short_names
from llmjobs.report.figures.placing import place_labels
from llmjobs.report.measure.matrix import DONE, Cell, cell_names
from llmjobs.report.wording import listed


def matrix_figures(cells: Sequence[Cell]) -> list[Figure]:
    """Return the pictures that the cells which ran allow."""
    done = [cell for cell in cells if cell.status == DONE and cell.measures]
    names = cell_names(done)
    return [*_times(done, names), *_tradeoff(done, names), *_memory(done, names)]


def _times(cells: Sequence[Cell], names: Sequence[str]) -> list[Figure]:
    parts = {
        "load": [cell.value("load_s") for cell in cells],
        "real": [cell.value("real_s") for cell in cells],
        "CPU": [cell.cpu_s for cell in cells],
        "GPU": [cell.value("gpu_s") for cell in cells],
    }
    kept = {name: values for name, values in parts.items() if any(value is not None for value in values)}
    if len(cells) < 2 or not kept:
        return []
    draw = partial(plots.cost_bars, names, kept, plots.SECONDS)
    return [Figure("matrix-times", f"Time ({listed(kept)}) of the whole process of every cell that ran.", draw)]


def _tradeoff(cells: Sequence[Cell], names: Sequence[str]) -> list[Figure]:
    points = [
        plots.CostPoint(name, asked_s, *right)
        for cell, name in zip(cells, names, strict=True)
        if (asked_s := cell.value("questions_real_s")) and (right := cell.accuracy)
    ]
    if len(points) < 2:
        return []
    draw = partial(plots.tradeoff, points, "real time of the questions", plots.SECONDS, 0.0)
    front = listed(point.label for point in plots.pareto(points))
    caption = f"Accuracy against real time of the same questions, without loading. On the Pareto front: {front}."
    return [Figure("matrix-accuracy-time", caption, draw)]


def _memory(cells: Sequence[Cell], names: Sequence[str]) -> list[Figure]:
    points = [
        (memory, speed, name)
        for cell, name in zip(cells, names, strict=True)
        if (memory := cell.memory_bytes) and (speed := cell.value("questions_per_s"))
    ]
    if len(points) < 2:
        return []
    draw = partial(memory_against_speed, points)
    return [Figure("matrix-memory-speed", "Peak memory against questions a second; up and left is better.", draw)]


def memory_against_speed(points: Sequence[tuple[float, float, str]]) -> Plot:
    """Draw cells by their peak memory (bytes) and questions a second; up and left is better."""
    unit = plots.fitting_unit(max(memory for memory, _, _ in points), plots.BYTES)
    with style.styled():
        figure = style.blank(3.0)
        axes = figure.subplots()
        at = [(memory / unit.factor, speed) for memory, speed, _ in points]
        axes.plot([x for x, _ in at], [y for _, y in at], "o", mfc=style.BLUE, mec=style.BLUE, ms=5.2)
        axes.margins(x=0.16, y=0.2)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"peak memory, {unit.name}")
        axes.set_ylabel("questions a second")
        axes.grid(axis="y")
        names = short_names([name for _, _, name in points], 26)
        place_labels(axes, [(x, y, name) for (x, y), name in zip(at, names, strict=True)])
    return figure
