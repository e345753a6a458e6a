"""The matrix in pictures, PDF and PNG: bars, time against accuracy, memory against speed. No torch."""

from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure as Plot

from llmjobs.report.blocks import Figure
from llmjobs.report.figures import cost as plots
from llmjobs.report.figures import style
from llmjobs.report.figures.naming import short_names
from llmjobs.report.figures.placing import place_labels
from llmjobs.report.measure.matrix import DONE, Cell
from llmjobs.report.write.figures import draw_figures
from llmjobs.runfolder.folder import RunFolder

FOLDER = "figures"


def write_figures(folder: RunFolder, cells: Sequence[Cell]) -> list[str]:
    """Draw what the cells that ran allow; returns the names of the figures."""
    done = [cell for cell in cells if cell.status == DONE and cell.measures]
    figures = [*_times(done), *_tradeoff(done), *_memory(done)]
    if figures:
        draw_figures(figures, folder.path / FOLDER)
    return [figure.name for figure in figures]


def _label(cell: Cell, cells: Sequence[Cell]) -> str:
    return f"{cell.model} {cell.name}" if len({one.model for one in cells}) > 1 else cell.name


def _times(cells: Sequence[Cell]) -> list[Figure]:
    parts = {
        "load": [cell.value("load_s") for cell in cells],
        "real": [cell.value("real_s") for cell in cells],
        "CPU": [cell.cpu_s for cell in cells],
        "GPU": [cell.value("gpu_s") for cell in cells],
    }
    kept = {name: values for name, values in parts.items() if any(value is not None for value in values)}
    if not cells or not kept:
        return []
    draw = partial(plots.cost_bars, [_label(cell, cells) for cell in cells], kept, plots.SECONDS)
    return [Figure("matrix-times", "Load, real, CPU and GPU time of every cell that ran.", draw)]


def _tradeoff(cells: Sequence[Cell]) -> list[Figure]:
    points = [
        plots.CostPoint(_label(cell, cells), len(cell.answers) / speed, *right)
        for cell in cells
        if (speed := cell.value("questions_per_s")) and (right := cell.accuracy)
    ]
    if len(points) < 2:
        return []
    draw = partial(plots.tradeoff, points, "real time of the questions", plots.SECONDS, 0.0)
    return [
        Figure(
            "matrix-accuracy-time", "Accuracy against real time of the same questions; filled: the Pareto front.", draw
        )
    ]


def _memory(cells: Sequence[Cell]) -> list[Figure]:
    points = [
        (memory, speed, _label(cell, cells))
        for cell in cells
        if (memory := cell.memory_bytes) and (speed := cell.value("questions_per_s"))
    ]
    if len(points) < 2:
        return []
    draw = partial(memory_against_speed, points)
    return [Figure("matrix-memory-speed", "Peak memory against questions a second.", draw)]


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
