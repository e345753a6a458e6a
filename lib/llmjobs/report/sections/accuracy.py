"""Accuracy: leaderboard with intervals, micro and macro, by benchmark and subject, calibration."""

import math
from collections.abc import Sequence
from functools import partial

from llmjobs.report.blocks import Block, Column, Content, Figure, Finding, Heading, Prose, Table
from llmjobs.report.figures import accuracy as plots
from llmjobs.report.measure import Measures
from llmjobs.report.measure.accuracy import BenchmarkAccuracy, ModelAccuracy, compare_metrics
from llmjobs.report.sections.base import Section
from llmjobs.report.sections.calibration import calibration_blocks
from llmjobs.report.sections.file_names import file_name
from llmjobs.report.wording import DASH, count, interval, listed, percent, plural, points, word

HEAT_ROWS = 38
CLUSTERS_FOR_INTERVAL = 5


def _wanted(measures: Measures) -> bool:
    return bool(measures.study.benchmarks)


def build(measures: Measures) -> Content:
    """Say how accurate every model is."""
    blocks: list[Block] = []
    findings: list[Finding] = []
    several = len(measures.accuracy) > 1
    for name, found in measures.accuracy.items():
        if several:
            blocks.append(Heading(name))
        blocks += _leaderboard(measures, name, found)
        blocks += _subjects(measures, name, found)
        blocks += _metrics(measures, found)
        blocks += calibration_blocks(measures, name, found)
        findings += _findings(measures, found)
    return Content(blocks, findings)


def labels(measures: Measures, found: BenchmarkAccuracy) -> list[str]:
    """Names in the order of the leaderboard."""
    return [measures.study.entries[model.entry].label for model in found.models]


def _leaderboard(measures: Measures, name: str, found: BenchmarkAccuracy) -> list[Block]:
    benchmark = found.benchmark
    chance = benchmark.chance
    told = f"Answering blindly would score {percent(chance)} on average: the chance line. " if chance else ""
    intro = Prose(
        f"{plural(benchmark.n, 'question')} of {name} in {plural(len(found.subjects), 'subject')}, the same"
        f" for every model. {told}Micro accuracy counts every question once, macro accuracy every subject"
        " once. Intervals hold 95% of the time: Wilson's for other questions from the same subjects; the"
        " clustered one also lets the subjects vary."
    )
    rows = [_row(measures, model, len(found.subjects)) for model in found.models]
    columns = [
        Column("Model", "left", 1),
        Column("Right"),
        Column("Questions"),
        Column("Micro"),
        Column("95% interval"),
    ]
    columns += [Column("Clustered"), Column("Macro"), Column("Unread"), Column("Errors")]
    table = Table(
        f"Accuracy on {name}",
        columns,
        rows,
        note=(
            "Unread: replies in which no answer could be read; they count as wrong. Errors: questions that"
            " could not be scored; they count neither way."
        ),
    )
    return [intro, table]


def _row(measures: Measures, model: ModelAccuracy, clusters: int) -> list[str]:
    micro, macro, wide = model.interval, model.macro, model.clustered
    clustered = clusters >= CLUSTERS_FOR_INTERVAL and not math.isnan(wide.low)
    return [
        measures.study.entries[model.entry].label,
        count(model.right),
        count(model.n),
        percent(micro.value),
        interval(micro.low, micro.high),
        interval(max(wide.low, 0), min(wide.high, 1)) if clustered else DASH,
        percent(macro.value),
        count(model.unparsed),
        count(model.errors),
    ]


def _subjects(measures: Measures, name: str, found: BenchmarkAccuracy) -> list[Block]:
    if len(found.subjects) < 2:
        return []
    names = labels(measures, found)
    parts = -(-len(found.subjects) // HEAT_ROWS)
    size = -(-len(found.subjects) // parts)
    blocks: list[Block] = []
    for part in range(parts):
        which = slice(part * size, (part + 1) * size)
        more = f" ({part + 1} of {parts})" if parts > 1 else ""
        what = (
            "with 95% intervals (Wilson), number of questions in parentheses"
            if len(names) <= plots.MOST_DOTS
            else "in percent, number of questions in parentheses. Dark is low, bright is high"
        )
        caption = f"Accuracy by subject{more} {what}."
        blocks.append(
            Figure(
                file_name("subjects", name, measures, part if parts > 1 else None),
                caption,
                partial(plots.heat_map, found, names, which),
            )
        )
    return blocks


def _metrics(measures: Measures, found: BenchmarkAccuracy) -> list[Block]:
    compared = compare_metrics(found.benchmark, "acc", "acc_norm")
    changed = [(row, result) for row, result in compared if result.only_first or result.only_second]
    if not changed:
        return []
    rows = []
    for row, result in changed:
        means = found.of(row).metrics
        rows.append([
            measures.label(found.benchmark, row), percent(means["acc"]), percent(means["acc_norm"]),
            points(result.difference, sign=True), f"{points(result.low)} to {points(result.high)}",
            count(result.only_first), count(result.only_second),
        ])  # fmt: skip
    columns = [
        Column("Model", "left", 1),
        Column("acc"),
        Column("acc_norm"),
        Column("Change"),
        Column("95% interval"),
        Column("Gained"),
        Column("Lost"),
    ]
    note = (
        "acc takes the option with the highest log-likelihood, acc_norm divides it by the option's length"
        " first. The two answer different questions: compare models on one of them."
    )
    return [Table("Two ways to choose among the same log-likelihoods", columns, rows, note=note)]


def _findings(measures: Measures, found: BenchmarkAccuracy) -> list[Finding]:
    main = measures.study.main is found.benchmark
    scored = [model for model in found.models if model.n]
    if not scored or not main:
        return []
    first = _first(measures, scored, found.benchmark.chance)
    return [first, *_spread(found), *_unread(measures, found)]


def _first(measures: Measures, scored: Sequence[ModelAccuracy], chance: float) -> Finding:
    """Say who is best, or that nobody is."""
    best = scored[0]
    value, low, high = best.interval
    name = measures.study.entries[best.entry].label
    level = [model for model in scored if model.interval.value == value]
    what = f"{percent(value)} of {count(best.n)} questions right (95%: {interval(low, high)})"
    told = f"; blind guessing would get {percent(chance, 0)}" if chance else ""
    if len(scored) == 1:
        return Finding(percent(value), f"{name} answers {what}{told}.", 100)
    if len(level) == len(scored):
        return Finding(percent(value), f"All {word(len(scored))} models get {what}{told}.", 100)
    if len(level) > 1:
        names = listed(measures.study.entries[model.entry].label for model in level)
        return Finding(percent(value), f"{names} are level at the top: {what}{told}.", 100)
    return Finding(percent(value), f"{name} is the most accurate: {what}{told}.", 100)


def _spread(found: BenchmarkAccuracy) -> list[Finding]:
    """Hardest and easiest subject, on average over the models."""
    if len(found.subjects) < 3:
        return []
    means = [float(x) for x in found.by_subject.mean(axis=0)]
    if any(math.isnan(x) for x in means):
        return []
    hard, easy = means.index(min(means)), means.index(max(means))
    if means[easy] - means[hard] < 0.1:
        return []
    who = "Averaged over the models, " if len(found.models) > 1 else ""
    text = (
        f"{who}{found.subjects[hard].replace('_', ' ')} is the hardest of {len(found.subjects)} subjects "
        f"({percent(means[hard], 0)} right) and {found.subjects[easy].replace('_', ' ')} the easiest "
        f"({percent(means[easy], 0)})."
    )
    return [Finding(percent(means[hard], 0), text[0].upper() + text[1:], 40)]


def _unread(measures: Measures, found: BenchmarkAccuracy) -> list[Finding]:
    bad = [(m.unparsed / m.n, m) for m in found.models if m.n and m.unparsed / m.n > 0.01]
    failed = [m for m in found.models if m.errors]
    findings = []
    if bad:
        share, worst = max(bad, key=lambda item: item[0])
        name = measures.study.entries[worst.entry].label
        findings.append(
            Finding(
                percent(share),
                f"{name} left no readable answer to {count(worst.unparsed)} of {count(worst.n)} questions;"
                " these count as wrong, which may say more about the prompt than about the model.",
                85,
                alarm=True,
            )
        )
    if failed:
        total = sum(m.errors for m in failed)
        names = listed(measures.study.entries[m.entry].label for m in failed)
        findings.append(
            Finding(
                count(total),
                f"{plural(total, 'question')} could not be scored ({names}) and"
                f" {'is' if total == 1 else 'are'} left out of the accuracies, not counted as wrong.",
                84,
                alarm=True,
            )
        )
    return findings


SECTION = Section("accuracy", "Accuracy", _wanted, build)
