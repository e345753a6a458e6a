"""Accuracy: leaderboard with intervals, micro and macro, by benchmark and subject, calibration."""

import math
import re
from collections.abc import Sequence
from functools import partial

from llmjobs.report.blocks import Block, Column, Content, Figure, Finding, Heading, Prose, Table
from llmjobs.report.figures import accuracy as plots
from llmjobs.report.measure import Measures
from llmjobs.report.measure.accuracy import (
    BenchmarkAccuracy,
    ModelAccuracy,
    compare_metrics,
    measure_accuracy,
    subjects_together,
)
from llmjobs.report.measure.faulty import faulty_columns
from llmjobs.report.measure.pairs import leading_group, representatives
from llmjobs.report.sections.base import Section
from llmjobs.report.sections.calibration import calibration_blocks
from llmjobs.report.sections.file_names import file_name
from llmjobs.report.study import Benchmark
from llmjobs.report.wording import (
    DASH,
    TOGETHER,
    all_of,
    count,
    interval,
    listed,
    p_value,
    percent,
    plural,
    points,
    sentence,
    word,
)

HEAT_ROWS = 58
"""Subjects in one figure at most: all of MMLU."""
MANY = 6
"""Names that a sentence lists beside their number."""
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
        blocks += _faulty_table(measures, found)
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
    scored = f", scored by {benchmark.metric}" if benchmark.metric not in ("", "acc") else ""
    intro = Prose(
        f"{plural(benchmark.n, 'question')} of {name} in {plural(len(found.subjects), 'subject')}, the same"
        f" for every model{scored}. {told}Micro accuracy counts every question once, macro accuracy every subject"
        " once. A 95% interval is made so that 95 of 100 such intervals hold the true accuracy: Wilson's for"
        " other questions from the same subjects; the clustered one also lets the subjects vary."
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


def _faulty_table(measures: Measures, found: BenchmarkAccuracy) -> list[Block]:
    """Accuracy with all questions and without those whose label the notes call faulty."""
    kept = measures.without_faulty.get(found.benchmark.name)
    if kept is None:
        return []
    again = {model.row: model for model in measure_accuracy(kept).models}
    rows = []
    for model in found.models:
        other = again[model.row].interval
        change = points(other.value - model.interval.value, sign=True)
        ends = interval(other.low, other.high)
        rows.append([measures.label(found.benchmark, model.row), percent(model.interval.value), percent(other.value),
                     ends, change])  # fmt: skip
    faulty, reviewed = faulty_columns(measures.study, found.benchmark)
    columns = [Column("Model", "left", 1), Column("All questions"), Column("Without faulty"), Column("95% interval")]
    note = (
        f"The label notes were found for {count(reviewed)} of {plural(found.benchmark.n, 'question')} and call"
        f" {count(len(faulty))} of them faulty. What nobody reviewed is kept."
    )
    return [Table("Without the questions whose label is in doubt", [*columns, Column("Change")], rows, note=note)]


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
    scored = [model for model in found.models if model.n]
    if not scored:
        return []
    return [_first(measures, found, scored), *_sisters(measures, found), *_spread(measures, found),
            *_without_faulty(measures, found), *_asked_otherwise(measures, found),
            *_unread(measures, found)]  # fmt: skip


def _first(measures: Measures, found: BenchmarkAccuracy, scored: Sequence[ModelAccuracy]) -> Finding:
    """Say who has most right, and who of the others cannot be told apart from that; one run stands for a model."""
    benchmark = found.benchmark
    stands = representatives(measures.study, benchmark)
    models = [model for model in scored if stands[model.row] == model.row] or list(scored)
    best = models[0]
    value, low, high = best.interval
    name = measures.study.entries[best.entry].label
    chance = benchmark.chance
    told = f"; blind guessing would get {percent(chance, 0)} on average" if chance else ""
    what = f"{percent(value)} of {plural(best.n, 'question')} right (95%: {interval(low, high)})"
    level = [model for model in models if model.interval.value == value]
    if len(models) > 1 and len(level) == len(models):
        text = f"On {benchmark.name}, {all_of(len(models))} models have {what}{told}."
    elif len(level) > 1:
        names = listed(measures.study.entries[model.entry].label for model in level)
        text = f"On {benchmark.name}, {names} are level at the top: each has {what}{told}."
        more = len(set(leading_group(measures.pairs[benchmark.name], best.row)) - {model.row for model in level})
        text += f" {sentence(plural(more, 'other model'))} cannot be told apart from the first of them." if more else ""
    elif len(models) > 1:
        several = len({measures.study.entries[model.entry].info.id for model in models}) < len(models)
        kind = "models and precisions" if several else "models"
        one_each = " (one run of each)" if len(models) < len(scored) else ""
        text = f"On {benchmark.name}, {name} has {what}, the most of {word(len(models))} {kind}{one_each}{told}."
        text += f" {_leaders(measures, benchmark, best.row, len(models) - 1)}"
    else:
        text = f"On {benchmark.name}, {name} has {what}{told}."
    return Finding(percent(value), text, 100)


def _leaders(measures: Measures, benchmark: Benchmark, best: int, others: int) -> str:
    """Say which models the best one cannot be told apart from, and which it is ahead of."""
    group = leading_group(measures.pairs[benchmark.name], best)[1:]
    if not group:
        return f"It is ahead of {'the other' if others == 1 else f'each of the {word(others)} others'}."
    names = listed(measures.label(benchmark, row) for row in group)
    if len(group) == others and others > MANY:
        return f"It cannot be told apart from any of the {word(others)} others."
    ahead = others - len(group)
    rest = f"; it is ahead of the other {word(ahead) if ahead > 1 else 'one'}" if ahead else ""
    return f"It cannot be told apart from {names}{rest}."


SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([bBmM])(?![A-Za-z0-9])")


def _named_size(name: str) -> tuple[str, float] | None:
    """Return the family's name (its first letters) and the number of parameters that a model's name tells."""
    short = name.rstrip("/").rsplit("/", 1)[-1]
    size, family = SIZE.search(short), re.match(r"[A-Za-z]+", short)
    if not size or not family:
        return None
    owner = name.rpartition("/")[0]
    return f"{owner}/{family.group()}".lower(), float(size.group(1)) * (1e9 if size.group(2) in "bB" else 1e6)


def _sisters(measures: Measures, found: BenchmarkAccuracy) -> list[Finding]:
    """Remark that a much larger model of the same family name has fewer right than a small one."""
    benchmark = found.benchmark
    sizes = [_named_size(measures.study.entries[place].info.id) for place in benchmark.rows]
    odd = []
    for pair in measures.pairs[benchmark.name]:
        better, worse = sizes[pair.first], sizes[pair.second]
        if pair.distinguishable and better and worse and better[0] == worse[0] and worse[1] >= 2 * better[1]:
            odd.append(pair)
    if not odd:
        return []
    pair = max(odd, key=lambda p: p.result.difference)
    small, large = (measures.label(benchmark, row) for row in (pair.first, pair.second))
    more = f" {sentence(plural(len(odd) - 1, 'more such pair'))}." if len(odd) > 1 else ""
    text = (
        f"On {benchmark.name}, {large} has {points(pair.result.difference)} points fewer right than the smaller {small}"
        f" ({TOGETHER}: {interval(*pair.together)}). Look at its prompt and at how its replies are read before taking"
        f" that for what it can do.{more}"
    )
    return [Finding(f"{points(-pair.result.difference, sign=True)} pts", text, 89, alarm=True)]


def _spread(measures: Measures, found: BenchmarkAccuracy) -> list[Finding]:
    """Name the subjects with the lowest and the highest accuracy, where the test finds that subjects differ."""
    benchmark = found.benchmark
    stands = representatives(measures.study, benchmark)
    rows = tuple(model.row for model in found.models if model.n and stands[model.row] == model.row)
    together = subjects_together(benchmark, rows) if rows and len(found.subjects) > 2 else None
    if together is None or together[1].p >= 0.05:
        return []
    subjects, test = together
    low, high = (pick(subjects, key=lambda s: s.interval.value) for pick in (min, max))
    who = "averaged over the models" if len(rows) > 1 else f"for {measures.label(benchmark, rows[0])}"
    text = (
        f"On {benchmark.name}, accuracy {who} is lowest in {low.subject.replace('_', ' ')}"
        f" ({percent(low.interval.value, 0)}; 95%: {interval(*low.interval[1:])}) and highest in"
        f" {high.subject.replace('_', ' ')} ({percent(high.interval.value, 0)}; {interval(*high.interval[1:])});"
        f" the intervals hold for all {count(len(subjects))} subjects together, which differ ({p_value(test.p)},"
        " permutation)."
    )
    return [Finding(percent(low.interval.value, 0), text, 40)]


def _without_faulty(measures: Measures, found: BenchmarkAccuracy) -> list[Finding]:
    """Say what accuracy is without the questions whose label is called faulty."""
    benchmark = found.benchmark
    kept = measures.without_faulty.get(benchmark.name)
    if kept is None:
        return []
    faulty, reviewed = faulty_columns(measures.study, benchmark)
    again = measure_accuracy(kept)
    before, after = found.models[0], again.models[0]
    same = before.row == after.row
    best = measures.study.entries[after.entry].label
    text = (
        f"On {benchmark.name}, the label notes call {count(len(faulty))} of {plural(reviewed, 'reviewed question')}"
        " faulty."
        f" Without these, {best} has {percent(after.interval.value)} of {count(after.n)} right (95%:"
        f" {interval(after.interval.low, after.interval.high)})"
        + (f" instead of {percent(before.interval.value)}." if same else ", the most of all.")
    )
    return [Finding(percent(after.interval.value), text, 87)]


def _asked_otherwise(measures: Measures, found: BenchmarkAccuracy) -> list[Finding]:
    """Say which models did not get the prompts that were planned: shots that did not fit, prompts that were cut."""
    name = found.benchmark.name
    changed = {model.entry: measures.study.entries[model.entry].changed.get(name) for model in found.models}
    said = [(measures.study.entries[entry].label, one) for entry, one in changed.items() if one and one.differs]
    if not said:
        return []
    told = "; ".join(f"{label}: {one}" for label, one in said[:3])
    more = f"; and {plural(len(said) - 3, 'other model')}" if len(said) > 3 else ""
    same = len({str(one) for _, one in said}) == 1 and len(said) == len(changed)
    what = "prompts did not fit into the context" if same else "the models were not asked the same"
    return [
        Finding(
            count(sum(max(one.fewer_shots, one.truncated, one.shortened) for _, one in said)),
            f"On {name}, {what} ({told}{more}).",
            95,
            alarm=True,
        )
    ]


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
                f"On {found.benchmark.name}, {name} left no readable answer to {count(worst.unparsed)} of"
                f" {plural(worst.n, 'question')}; these count as wrong, which may say more about the prompt than"
                " about the model.",
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
                f"On {found.benchmark.name}, {plural(total, 'answer')} could not be scored ({names}) and"
                f" {'is' if total == 1 else 'are'} left out of the accuracies, not counted as wrong.",
                84,
                alarm=True,
            )
        )
    return findings


SECTION = Section("accuracy", "Accuracy", _wanted, build)
