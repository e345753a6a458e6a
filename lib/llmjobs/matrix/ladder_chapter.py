"""The report's page on the ladder: precisions and engines in one table, what each changes, and which are worth it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from llmjobs.matrix.ladder import Ladder, Rung
from llmjobs.records import DONE, CellResult
from llmjobs.report.blocks import Block, Column, Content, Figure, Finding, Heading, Prose, Section, Table
from llmjobs.report.measure import Measures
from llmjobs.report.numbers import count, decimal, interval, percent, plain_p, points, seconds, size
from llmjobs.report.sections import cost as plots
from llmjobs.report.wording import DASH, listed
from llmjobs.report.write.notes import TIMINGS

SOURCES = {"text": "the text", "prompts": "the prompts"}
NEW_TOKENS = 1000
"""Decode speed is drawn as the time of this many new tokens, so that less is better on every axis."""


def _cells(measures: Measures) -> list[CellResult]:
    return [cell for run in measures.study.runs for cell in run.cells if cell.precision]


def _wanted(measures: Measures) -> bool:
    return any(cell.status == DONE for cell in _cells(measures))


def build(measures: Measures) -> Content:
    """The ladder's table, the answers that change, the divergence, and the Pareto fronts."""
    ladder = Ladder.of(_cells(measures))
    rungs = ladder.rungs
    blocks: list[Block] = [_explained(rungs), _table(rungs), *_other_tokens(rungs)]
    if compared := [rung for rung in rungs if rung.flips]:
        blocks += [Heading("What each precision changes"), _changes(compared)]
    blocks += [*_divergence(rungs), *pareto_figures(rungs)]
    findings = _findings(rungs)
    return Content(blocks, findings, [(TIMINGS, finding.sentence) for finding in findings])


def _references(rungs: Sequence[Rung]) -> str:
    return listed(dict.fromkeys(rung.flips.against.row for rung in rungs if rung.flips))


def _explained(rungs: Sequence[Rung]) -> Prose:
    against = _references(rungs)
    compared = f" Each is compared with {against} on the same questions." if against else ""
    return Prose(
        "Precisions and engines side by side, each in a separate process on the same machine. On disk: the weight"
        " files that were loaded; a checkpoint that is quantized while it is loaded keeps its full size there. Memory:"
        " what must be free, on the GPU if there is one. Prefill and decode are timed separately from"
        f" the questions.{compared}"
    )


def _table(rungs: Sequence[Rung]) -> Table:
    columns = [
        Column("Precision", "left", 1),
        Column("Engine", "left"),
        Column("On disk"),
        Column("Memory"),
        Column("Load"),
        Column("Prefill tok/s"),
        Column("Decode tok/s"),
        Column("Questions/s"),
        Column("Right"),
        Column("95% interval"),
    ]
    rows = []
    for rung in rungs:
        cell, right = rung.cell, rung.cell.accuracy
        rows.append(
            [
                rung.name,
                cell.engine,
                size(cell.value("file_bytes")),
                size(cell.memory_bytes),
                seconds(cell.value("load_s")),
                _rate(rung.prefill),
                _rate(rung.decode),
                _rate(cell.value("questions_per_s")),
                percent(right.value) if right else DASH,
                interval(right.low, right.high) if right else DASH,
            ]
        )
    return Table("The ladder", columns, rows, note="A dash: not measured; that does not mean zero.")


def _other_tokens(rungs: Sequence[Rung]) -> list[Block]:
    """A warning for each precision whose tokenizer is not the reference's: its answers differ for that reason too."""
    told = [f"{rung.name}: {rung.cell.tokens_differ}." for rung in rungs if rung.cell.tokens_differ]
    return [Prose(line, kind="alarm") for line in told]


def _rate(value: float | None) -> str:
    return DASH if value is None else count(value) if value >= 100 else decimal(value, 1)


def _changes(rungs: Sequence[Rung]) -> Table:
    columns = [
        Column("Precision", "left", 1),
        Column("Against", "left"),
        Column("Questions"),
        Column("Answers changed"),
        Column("Lost"),
        Column("Gained"),
        Column("Points"),
        Column("95%, all rows together"),
        Column("p (Holm)"),
    ]
    rows = []
    for rung in rungs:
        flips, wide = rung.flips, rung.together
        assert flips is not None and wide is not None and rung.p_holm is not None
        found = flips.result
        rows.append(
            [
                rung.name,
                flips.against.row,
                count(found.n),
                f"{count(flips.changed)} ({percent(flips.changed / found.n)})",
                count(found.only_second),
                count(found.only_first),
                points(found.difference, sign=True),
                interval(wide.low, wide.high),
                plain_p(rung.p_holm),
            ]
        )
    note = (
        "Lost: right at the reference precision, wrong at this one. Gained: the other way round. p: McNemar's exact"
        " test, adjusted for the number of rows (Holm); the intervals hold for all rows at the same time (Bonferroni)."
    )
    return Table("Answers that a precision changes", columns, rows, note=note)


def _divergence(rungs: Sequence[Rung]) -> list[Block]:
    rows = [
        [rung.name, SOURCES.get(source, source), *_figures(found)]
        for source in SOURCES
        for rung in rungs
        if (found := rung.cell.divergence.get(source))
    ]
    missing = [f"{rung.name}: {rung.cell.divergence_reason}." for rung in rungs if rung.cell.divergence_reason]
    notes: list[Block] = [Prose(" ".join(missing), kind="note")] if missing else []
    if not rows:
        return notes
    columns = [
        Column("Precision", "left", 1),
        Column("Over", "left"),
        Column("Positions"),
        Column("Mean KL"),
        Column("95% interval"),
        Column("Median"),
        Column("99th percentile"),
        Column("Same top token"),
        Column("Perplexity ratio"),
    ]
    note = (
        "KL divergence of the next token's distribution from the reference's, in nats: 0 is the same distribution. The"
        " text is read in parts, and the second half of each is compared; a prompt is compared where its answer begins."
        " Intervals treat each part or prompt as one unit. Perplexity ratio: this precision's perplexity on the text,"
        " divided by the reference's."
    )
    return [
        Heading("How far the distribution of the next token moves"),
        Table("KL divergence from the reference precision", columns, rows, note=note),
        *notes,
    ]


def _figures(found: Mapping[str, Any]) -> list[str]:
    mean, median, p99, same, ratio = (
        found.get(name) or {} for name in ("mean", "median", "p99", "same_top", "perplexity_ratio")
    )
    ends = (mean.get("low"), mean.get("high"))
    return [
        count(found.get("positions") or 0),
        nats(mean.get("value")),
        DASH if None in ends else f"{nats(ends[0])} to {nats(ends[1])}",
        nats(median.get("value")),
        nats(p99.get("value")),
        DASH if same.get("value") is None else percent(same["value"]),
        decimal(ratio.get("value"), 3),
    ]


def nats(value: float | None) -> str:
    """A divergence with two digits: ``0.00012``, ``0.034``, ``1.2``."""
    if value is None:
        return DASH
    return f"{float(f'{value:.2g}'):f}".rstrip("0").rstrip(".") if value >= 1e-6 else "0"


def pareto_figures(rungs: Sequence[Rung]) -> list[Figure]:
    """Accuracy against memory, and against the time of new tokens; precisions on the front are filled."""
    found = []
    for key, axis, units, cost in (
        ("memory", "memory", plots.BYTES, lambda rung: rung.cell.memory_bytes),
        ("decode", f"time of {NEW_TOKENS:,} new tokens", plots.SECONDS, _decode_s),
    ):
        at = [
            plots.CostPoint(rung.name, spent, *right)
            for rung in rungs
            if (spent := cost(rung)) and (right := rung.cell.accuracy)
        ]
        if len(at) < 2:
            continue
        front = listed(point.label for point in plots.pareto(at))
        caption = f"Accuracy against {axis}, with 95% intervals. On the Pareto front: {front}."
        found.append(Figure(f"ladder-accuracy-{key}", caption, partial(plots.tradeoff, at, axis, units, 0.0)))
    return found


def _decode_s(rung: Rung) -> float | None:
    return NEW_TOKENS / rung.decode if rung.decode else None


def _findings(rungs: Sequence[Rung]) -> list[Finding]:
    """One sentence on the precision that needs the least memory among those without a detectable loss of accuracy."""
    alike = [
        rung
        for rung in rungs
        if rung.flips
        and rung.together
        and rung.p_holm is not None
        and rung.together.low <= 0
        and rung.cell.memory_bytes
    ]
    lower = [rung for rung in alike if rung.flips and (rung.flips.against.memory_bytes or 0.0) > _memory(rung)]
    found = []
    if lower:
        best = min(lower, key=_memory)
        assert best.flips is not None and best.together is not None
        against, wide = best.flips.against, best.together
        faster = ""
        if best.decode and (theirs := against.value("decode_tokens_per_s")):
            faster = f" and decodes {_rate(best.decode)} tokens per second against {_rate(theirs)}"
        text = (
            f"Of the precisions whose accuracy cannot be told from {against.row}, {best.name} needs the least memory:"
            f" {size(_memory(best))} against {size(against.memory_bytes)}{faster};"
            f" {count(best.flips.changed)} of {count(best.flips.result.n)} answers changed"
            f" ({points(best.flips.result.difference, sign=True)} points, 95% for all rows together:"
            f" {interval(wide.low, wide.high)})."
        )
        found.append(Finding(size(_memory(best)), text, 82))
    worse = [
        rung for rung in rungs if rung.flips and rung.together and rung.together.high < 0 and (rung.p_holm or 0) < 0.05
    ]
    for rung in worse:
        assert rung.flips is not None and rung.together is not None
        result, wide = rung.flips.result, rung.together
        text = (
            f"{rung.name} loses {points(abs(result.difference))} points against {rung.flips.against.row}"
            f" (95% for all rows together: {interval(wide.low, wide.high)}); {count(rung.flips.changed)} of"
            f" {count(result.n)} answers changed."
            + (" Its tokenizer splits some prompts into different tokens." if rung.cell.tokens_differ else "")
        )
        found.append(Finding(f"{points(result.difference, sign=True)} pts", text, 78))
    return found


def _memory(rung: Rung) -> float:
    return rung.cell.memory_bytes or 0.0


SECTION = Section("ladder", "The ladder of precisions", _wanted, build)
