"""The report's chapter on the timing matrix: the grid, its figures, and which answers a setting changes."""

from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.figure import Figure as Plot

from llmjobs.matrix.summary import Flips, cell_names, find_flips
from llmjobs.records import DONE, CellResult
from llmjobs.report import figure_style
from llmjobs.report.blocks import Block, Column, Content, Figure, Finding, Heading, Prose, Section, Table
from llmjobs.report.figure_style import place_labels, short_names
from llmjobs.report.measure import Measures
from llmjobs.report.measure.cost import FAR_APART, LONG_ENOUGH_S
from llmjobs.report.numbers import count, decimal, interval, percent, plain_p, points, ratio, seconds, size
from llmjobs.report.sections import cost as plots
from llmjobs.report.wording import DASH, all_of, listed
from llmjobs.report.write.notes import TIMINGS
from llmjobs.statistics.paired import difference_from_counts, simultaneous_level


def matrix_figures(cells: Sequence[CellResult]) -> list[Figure]:
    """Return the figures for the cells that ran."""
    done = [cell for cell in cells if cell.status == DONE and cell.measures]
    names = cell_names(done)
    return [*_times(done, names), *_tradeoff(done, names), *_memory(done, names)]


def _times(cells: Sequence[CellResult], names: Sequence[str]) -> list[Figure]:
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
    return [Figure("matrix-times", f"Time ({listed(kept)}) of the whole process of each cell that ran.", draw)]


def _tradeoff(cells: Sequence[CellResult], names: Sequence[str]) -> list[Figure]:
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


def _memory(cells: Sequence[CellResult], names: Sequence[str]) -> list[Figure]:
    points = [
        (memory, speed, name)
        for cell, name in zip(cells, names, strict=True)
        if (memory := cell.memory_bytes) and (speed := cell.value("questions_per_s"))
    ]
    if len(points) < 2:
        return []
    draw = partial(memory_against_speed, points)
    return [Figure("matrix-memory-speed", "Peak memory against questions per second; up and left is better.", draw)]


def memory_against_speed(points: Sequence[tuple[float, float, str]]) -> Plot:
    """Draw cells by their peak memory (bytes) and questions per second; up and left is better."""
    unit = plots.fitting_unit(max(memory for memory, _, _ in points), plots.BYTES)
    with figure_style.styled():
        figure = figure_style.blank(3.0)
        axes = figure.subplots()
        at = [(memory / unit.factor, speed) for memory, speed, _ in points]
        axes.plot([x for x, _ in at], [y for _, y in at], "o", mfc=figure_style.BLUE, mec=figure_style.BLUE, ms=5.2)
        axes.margins(x=0.16, y=0.2)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"peak memory, {unit.name}")
        axes.set_ylabel("questions per second")
        axes.grid(axis="y")
        names = short_names([name for _, _, name in points], 26)
        place_labels(axes, [(x, y, name) for (x, y), name in zip(at, names, strict=True)])
    return figure


def _cells(measures: Measures) -> list[CellResult]:
    return [cell for run in measures.study.runs for cell in run.cells]


def _wanted(measures: Measures) -> bool:
    return bool(_cells(measures))


def build(measures: Measures) -> Content:
    """The grid, its figures, and the answers that a setting changes."""
    cells = _cells(measures)
    done = [cell for cell in cells if cell.status == DONE]
    alone = [cell for cell in done if not cell.precision]  # precisions have a page of their own
    flips, named = find_flips(alone), dict(zip(map(id, done), cell_names(done), strict=True))
    blocks: list[Block] = [
        _explained(cells),
        *_grid(done),
        *_without_result(cells),
        *matrix_figures(cells),
    ]
    if flips:
        blocks += [Heading("Which answers change"), _flips(flips, named)]
    findings = [*_speed(alone, named), *_loss(flips, named)]
    return Content(blocks, findings, [(TIMINGS, finding.sentence) for finding in findings])


def _explained(cells: Sequence[CellResult]) -> Prose:
    repeated = sorted({cell.repetitions for cell in cells if cell.repetitions})
    times = f" Medians of {listed(map(str, repeated))} repetitions." if repeated and repeated[-1] > 1 else ""
    return Prose(
        "Each cell runs in a separate process, so load time and peak memory are those of the cell. Device and precision"
        " are read from the loaded weights. CPU time is user and system time of all threads. For a cell that the"
        f" machine cannot run, the reason is given.{times}"
    )


def _grid(cells: Sequence[CellResult]) -> list[Block]:
    if not cells:
        return []
    columns = [
        Column("Cell", "left", 1),
        Column("Load"),
        Column("Real"),
        Column("CPU"),
        Column("GPU"),
        Column("First token"),
        Column("Decode tok/s"),
        Column("Questions/s"),
        Column("Right"),
        Column("Peak memory"),
        Column("Weights"),
    ]
    rows = []
    for cell, name in zip(cells, cell_names(cells), strict=True):
        right = cell.accuracy
        rows.append(
            [
                name,
                seconds(cell.value("load_s")),
                seconds(cell.value("real_s")),
                seconds(cell.cpu_s),
                seconds(cell.value("gpu_s")),
                seconds(cell.value("ttft_s")),
                decimal(cell.value("decode_tokens_per_s"), 1),
                decimal(cell.value("questions_per_s"), 1),
                percent(right.value) if right else DASH,
                size(cell.memory_bytes),
                size(cell.value("weight_bytes")),
            ]
        )
    blocks: list[Block] = [Table("The grid", columns, rows, note="A dash: not measured; that does not mean zero.")]
    if energy := [cell for cell in cells if cell.value("energy_j") is not None]:
        used = [
            [name, decimal(cell.value("energy_j"), 1), decimal(cell.value("joules_per_1000_questions"), 1)]
            for name, cell in zip(cell_names(energy), energy, strict=True)
        ]
        columns = [Column("Cell", "left", 1), Column("Joules"), Column("Joules per 1,000 questions")]
        blocks.append(Table("Energy of the whole process", columns, used))
    return blocks


def _without_result(cells: Sequence[CellResult]) -> list[Block]:
    named = zip(cells, cell_names(cells), strict=True)
    rows = [[name, cell.status, cell.reason or "no reason recorded"] for cell, name in named if cell.status != DONE]
    columns = [Column("Cell", "left", 1), Column("State", "left"), Column("Reason", "left", 2)]
    return [Table("Cells without a result", columns, rows)] if rows else []


def _flips(flips: Sequence[Flips], named: Mapping[int, str]) -> Table:
    """``named`` maps the ``id()`` of each cell to its name."""
    columns = [
        Column("Cell", "left", 1),
        Column("Against", "left", 1),
        Column("Questions"),
        Column("Answers changed"),
        Column("Lost"),
        Column("Gained"),
        Column("Points"),
        Column("95% interval"),
        Column("p"),
    ]
    rows = [
        [
            named[id(f.cell)],
            named[id(f.against)],
            count(f.result.n),
            percent(f.changed / f.result.n),
            count(f.result.only_second),
            count(f.result.only_first),
            points(f.result.difference, sign=True),
            interval(f.result.low, f.result.high),
            plain_p(f.result.p),
        ]
        for f in flips
    ]
    note = (
        "Lost: right in the reference cell, wrong in this one. Gained: the other way round. p: McNemar's exact"
        " test. p and interval are not adjusted for the number of rows."
    )
    return Table("Answers that a setting changes", columns, rows, note=note)


def _speed(cells: Sequence[CellResult], named: Mapping[int, str]) -> list[Finding]:
    """For every quantized cell, whether it is faster than the unquantized one on the same device."""
    findings = []
    for cell in cells:
        plain = next(
            (c for c in cells if (c.model, c.device, c.quantization) == (cell.model, cell.device, "none")),
            None,
        )
        mine, theirs = cell.value("questions_real_s"), plain.value("questions_real_s") if plain else None
        if cell.quantization == "none" or not mine or not theirs or plain is None:
            continue
        factor, few = mine / theirs, min(cell.repetitions, plain.repetitions)
        if max(factor, 1 / factor) < FAR_APART or (few < 2 and min(mine, theirs) < LONG_ENOUGH_S):
            continue
        if few > 1 and _overlap(cell, plain):
            continue
        much = f"{ratio(factor)} times as long as" if factor > 1 else f"{ratio(1 / factor)} times as fast as"
        verb = "takes" if factor > 1 else "is"
        memory = ""
        if cell.memory_bytes and plain.memory_bytes:
            memory = f", using {size(cell.memory_bytes)} of memory against {size(plain.memory_bytes)}"
        runs = f"medians of {count(few)} repetitions whose ranges do not overlap" if few > 1 else "one run each"
        times = f"({seconds(mine)} against {seconds(theirs)}, {runs})"
        text = f"{named[id(cell)]} {verb} {much} {plain.row} for the same questions {times}{memory}."
        findings.append(Finding(f"{ratio(factor)}×", text, 80))
    return findings


def _overlap(first: CellResult, second: CellResult) -> bool:
    """Whether the ranges of two cells' repetitions overlap."""
    a, b = first.measures["questions_real_s"], second.measures["questions_real_s"]
    return a is not None and b is not None and a.low <= b.high and b.low <= a.high


def _loss(flips: Sequence[Flips], named: Mapping[int, str]) -> list[Finding]:
    found = []
    for flip in flips:
        if flip.cell.quantization == "none" or flip.cell.device != flip.against.device:
            continue
        result, pairs = flip.result, len(flips)
        wide = difference_from_counts(result.only_first, result.only_second, result.n, simultaneous_level(pairs))
        ends = f"{f'95% for {all_of(pairs)} cells together' if pairs > 1 else '95%'}: {interval(wide.low, wide.high)}"
        apart = result.p * pairs < 0.05 and not wide.low <= 0 <= wide.high
        verb = "loses" if result.difference < 0 else "gains"
        change = (
            f"{verb} {points(abs(result.difference))} points against {flip.against.row} ({ends})"
            if apart
            else f"cannot be told apart in accuracy from {flip.against.row}:"
            f" {points(result.difference, sign=True)} points ({ends})"
        )
        text = (
            f"{named[id(flip.cell)]} {change}; {count(flip.changed)} of its {count(result.n)} answers changed"
            f" ({percent(flip.changed / result.n)})."
        )
        found.append(Finding(f"{points(result.difference, sign=True)} pts", text, 78))
    return found


SECTION = Section("matrix", "The timing matrix", _wanted, build)
