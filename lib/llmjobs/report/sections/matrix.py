"""The timing matrix: the grid, its bars, accuracy against time, and which answers a setting changes."""

from collections.abc import Sequence
from functools import partial

from llmjobs.report.blocks import Block, Column, Content, Figure, Finding, Heading, Prose, Table
from llmjobs.report.figures import cost as plots
from llmjobs.report.measure import Measures
from llmjobs.report.measure.matrix import DONE, Cell, Flips, find_flips
from llmjobs.report.sections.base import Section
from llmjobs.report.wording import (
    DASH,
    count,
    decimal,
    interval,
    listed,
    percent,
    plain_p,
    points,
    ratio,
    seconds,
    size,
)
from llmjobs.report.write.notes import TIMINGS


def _wanted(measures: Measures) -> bool:
    return bool(measures.cells)


def build(measures: Measures) -> Content:
    """Put the grid on paper."""
    cells = measures.cells
    done = [cell for cell in cells if cell.status == DONE]
    flips = find_flips(done)
    blocks: list[Block] = [
        _explained(cells),
        *_grid(done),
        *_unavailable(cells),
        *_bars(done),
        *_tradeoff(done),
    ]
    if flips:
        blocks += [Heading("Which answers change"), _flips(flips)]
    findings = [*_speed(done), *_loss(flips)]
    return Content(blocks, findings, [(TIMINGS, finding.sentence) for finding in findings])


def _explained(cells: Sequence[Cell]) -> Prose:
    repeated = sorted({cell.repetitions for cell in cells if cell.repetitions})
    times = f" Medians of {listed(map(str, repeated))} repetitions." if repeated and repeated[-1] > 1 else ""
    return Prose(
        "One process a cell, so that load time and peak memory are its own; device and precision are read"
        " off the loaded weights. CPU time is user and system time of all threads. A cell that this"
        f" machine cannot run has its reason, not a number.{times}"
    )


def _grid(cells: Sequence[Cell]) -> list[Block]:
    if not cells:
        return []
    several = len({cell.model for cell in cells}) > 1
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
    for cell in cells:
        right = cell.accuracy
        rows.append(
            [
                f"{cell.model} {cell.name}" if several else cell.name,
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
    blocks: list[Block] = [Table("The grid", columns, rows, note="A dash: not measured, which is not zero.")]
    energy = [cell for cell in cells if cell.value("energy_j") is not None]
    if energy:
        told = [[cell.name, decimal(cell.value("energy_j"), 1)] for cell in energy]
        blocks.append(Table("Energy", [Column("Cell", "left", 1), Column("Joules")], told))
    return blocks


def _unavailable(cells: Sequence[Cell]) -> list[Block]:
    rows = [[cell.name, cell.status, cell.reason or "no reason recorded"] for cell in cells if cell.status != DONE]
    columns = [Column("Cell", "left", 1), Column("State", "left"), Column("Reason", "left", 2)]
    return [Table("Cells without a result", columns, rows)] if rows else []


def _bars(cells: Sequence[Cell]) -> list[Block]:
    if len(cells) < 2:
        return []
    parts = {"load": [c.value("load_s") for c in cells], "real": [c.value("real_s") for c in cells],
             "CPU": [c.cpu_s for c in cells], "GPU": [c.value("gpu_s") for c in cells]}  # fmt: skip
    kept = {name: values for name, values in parts.items() if any(value is not None for value in values)}
    if not kept:
        return []
    draw = partial(plots.cost_bars, [cell.name for cell in cells], kept, plots.SECONDS)
    return [Figure("matrix-times", "Times of every cell that ran.", draw)]


def _tradeoff(cells: Sequence[Cell]) -> list[Block]:
    points_ = [
        plots.CostPoint(cell.name, real, *right)
        for cell in cells
        if (real := cell.value("real_s")) and (right := cell.accuracy)
    ]
    if len(points_) < 2:
        return []
    front = listed(p.label for p in plots.pareto(points_))
    caption = f"Accuracy against real time of the same questions. On the front: {front}."
    return [
        Figure(
            "matrix-accuracy-time",
            caption,
            partial(plots.tradeoff, points_, "real time", plots.SECONDS, 0.0),
        )
    ]


def _flips(flips: Sequence[Flips]) -> Table:
    columns = [
        Column("Cell", "left", 1),
        Column("Against", "left", 1),
        Column("Questions"),
        Column("Other answer"),
        Column("Lost"),
        Column("Gained"),
        Column("Points"),
        Column("95% interval"),
        Column("p"),
    ]
    rows = [
        [
            f.cell.name,
            f.against.name,
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
    note = "Lost: right in the compared cell and wrong here; gained: the other way round. p: McNemar's exact test."
    return Table("Answers that a setting changes", columns, rows, note=note)


def _speed(cells: Sequence[Cell]) -> list[Finding]:
    """Say of every quantized cell whether it is faster than the plain one on the same device."""
    findings = []
    for cell in cells:
        plain = next(
            (c for c in cells if (c.model, c.device, c.quantization) == (cell.model, cell.device, "none")),
            None,
        )
        mine, theirs = cell.value("real_s"), plain.value("real_s") if plain else None
        if cell.quantization == "none" or not mine or not theirs or plain is None:
            continue
        faster = mine < theirs
        much = f"{ratio(mine / theirs)} {'of the time of' if faster else 'times as long as'} {plain.name}"
        memory = ""
        if cell.memory_bytes and plain.memory_bytes:
            memory = f", with {size(cell.memory_bytes)} of memory against {size(plain.memory_bytes)}"
        text = f"{cell.name} takes {much} ({seconds(mine)} against {seconds(theirs)}){memory}."
        findings.append(Finding(f"{ratio(mine / theirs)}×", text, 80))
    return findings


def _loss(flips: Sequence[Flips]) -> list[Finding]:
    found = []
    for flip in flips:
        if flip.cell.quantization == "none" or flip.cell.device != flip.against.device:
            continue
        result = flip.result
        sure = "distinguishable from none" if result.p < 0.05 else "not distinguishable from none"
        verb = "loses" if result.difference < 0 else "gains"
        change = (
            f"{verb} {points(abs(result.difference))} points against {flip.against.name} (95%: "
            f"{interval(result.low, result.high)}), {sure}"
            if result.difference
            else "scores the same"
        )
        text = f"{flip.cell.name} {change}; {percent(flip.changed / result.n)} of its answers are others."
        found.append(Finding(f"{points(result.difference, sign=True)} pts", text, 78))
    return found


SECTION = Section("matrix", "The timing matrix", _wanted, build)
