"""Scores: mean scores if a log gives partial credit, and every metric by which answers were scored."""

from llmjobs.report.blocks import Block, Column, Content, Finding, Prose, Section, Table
from llmjobs.report.measure import Measures
from llmjobs.report.measure.scores import MetricScores
from llmjobs.report.numbers import count, interval, percent, points
from llmjobs.report.wording import plural

INTRO = (
    "A mean score includes partial credit: an answer is worth between 0 and 1. Its interval is Student's t, for other"
    " questions of the same kind. Analyses that need right and wrong answers (shared mistakes, patterns) are not"
    " computed from mean scores."
)
SEVERAL = (
    "The logs score the same answers by more than one metric. The rest of this report uses the marked one; to use"
    " another, add --where metric=NAME."
)


def _wanted(measures: Measures) -> bool:
    return bool(measures.study.metrics)


def build(measures: Measures) -> Content:
    """The means of every metric."""
    blocks: list[Block] = []
    findings: list[Finding] = []
    if any(scores.table.graded for scores in measures.scores):
        blocks.append(Prose(INTRO))
    if any(not scores.table.counts for scores in measures.scores):
        blocks.append(Prose(SEVERAL))
    for benchmark in dict.fromkeys(scores.table.benchmark for scores in measures.scores):
        blocks.append(_table(measures, benchmark, [s for s in measures.scores if s.table.benchmark == benchmark]))
    for scores in measures.scores:
        if scores.table.graded and scores.table.counts:
            findings += _finding(measures, scores)
    return Content(blocks, findings)


def _table(measures: Measures, benchmark: str, parts: list[MetricScores]) -> Table:
    rows: list[list[str]] = []
    strong = set()
    for scores in parts:
        name = scores.table.name or "as recorded"
        for model in scores.models:
            if scores.table.counts:
                strong.add(len(rows))
            rows.append([
                name + (" (counts)" if scores.table.counts and len(parts) > 1 else ""),
                "mean score" if scores.table.graded else "right",
                measures.study.entries[model.entry].label, percent(model.interval.value),
                interval(model.interval.low, model.interval.high), count(model.n),
            ])  # fmt: skip
    columns = [
        Column("Metric", "left", 1),
        Column("Kind", "left"),
        Column("Model", "left", 1),
        Column("Mean"),
        Column("95% interval"),
        Column("Questions"),
    ]
    return Table(f"Scores on {benchmark}", columns, rows, strong=frozenset(strong))


def _finding(measures: Measures, scores: MetricScores) -> list[Finding]:
    """Name the model with the highest mean score and say whether the next one differs."""
    held = [model for model in scores.models if model.n]
    if not held:
        return []
    first = held[0]
    name = measures.study.entries[first.entry].label
    value, low, high = first.interval
    table = scores.table
    what = f"a mean score ({table.name}) of {percent(value)} over {plural(first.n, 'question')}"
    text = f"On {table.benchmark}, {name} has {what} (95%: {interval(low, high)})."
    if len(held) > 1 and scores.best is not None:
        second = measures.study.entries[held[1].entry].label
        gap = scores.best
        ends = f"{points(gap.value)} points, 95%: {points(gap.low)} to {points(gap.high)}"
        apart = "It is ahead of" if gap.low > 0 else "It cannot be told apart from"
        text += f" {apart} {second} ({ends})."
    return [Finding(percent(value), text, 95)]


SECTION = Section("scores", "Scores", _wanted, build)
