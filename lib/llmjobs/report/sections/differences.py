"""Differences: every pair on the same questions."""

from functools import partial

from llmjobs.report.blocks import Block, Column, Content, Cut, Figure, Finding, Heading, Prose, Table
from llmjobs.report.figures import difference as plots
from llmjobs.report.measure import Measures
from llmjobs.report.measure.pairs import Pair
from llmjobs.report.sections.base import Section
from llmjobs.report.sections.file_names import file_name
from llmjobs.report.study import Benchmark
from llmjobs.report.wording import (
    count,
    interval,
    p_value,
    percent,
    plain_p,
    plural,
    points,
    ratio,
    word,
)

FOREST_LIMIT = 15
MOST_MODELS = 9
"""Models whose pairs are all printed in a row each; of more models, the best ones."""


def _wanted(measures: Measures) -> bool:
    return any(measures.pairs.values())


def build(measures: Measures) -> Content:
    """Say which models differ, by how much, and how sure that is."""
    blocks: list[Block] = [
        Prose(
            "Two models that answered the same questions are compared question by question: what both get"
            " right or both get wrong says nothing about which is better, so the interval of the difference"
            " is narrower than the two models' own intervals suggest. p is McNemar's exact test, adjusted"
            " by Holm for the number of pairs; the interval is Bonett and Price's."
        )
    ]
    findings: list[Finding] = []
    for benchmark in measures.study.benchmarks:
        pairs = measures.pairs[benchmark.name]
        if not pairs:
            continue
        if len(measures.study.benchmarks) > 1:
            blocks.append(Heading(benchmark.name))
        blocks += _pairs(measures, benchmark, pairs)
        if benchmark is measures.study.main:
            findings += _findings(measures, benchmark, pairs)
    blocks += _repeats(measures)
    return Content(blocks, findings)


def _pairs(measures: Measures, benchmark: Benchmark, pairs: list[Pair]) -> list[Block]:
    names = [measures.label(benchmark, row) for row in range(len(benchmark.rows))]
    order = [model.row for model in measures.accuracy[benchmark.name].models]
    ranked = sorted(pairs, key=lambda p: (order.index(p.first), order.index(p.second)))
    apart = sum(pair.distinguishable for pair in pairs)
    told = Prose(
        f"{plural(apart, 'pair')} of {count(len(pairs))} can be told apart at the 5% level after the correction."
        if len(pairs) > 1
        else (
            "The pair can be told apart at the 5% level." if apart else "The pair cannot be told apart at the 5% level."
        )
    )
    figure = _figure(measures, benchmark, pairs, ranked)
    columns = [
        Column("First", "left", 1),
        Column("Second", "left", 1),
        Column("Points"),
        Column("95% interval"),
        Column("Only first"),
        Column("Only second"),
        Column("p (Holm)"),
        Column("Answers differ"),
    ]
    rows = [
        [
            names[p.first],
            names[p.second],
            points(p.result.difference, sign=True),
            f"{points(p.result.low)} to {points(p.result.high)}",
            count(p.result.only_first),
            count(p.result.only_second),
            plain_p(p.p_holm),
            percent(p.changed / p.result.n),
        ]
        for p in ranked
    ]
    strong = frozenset(place for place, pair in enumerate(ranked) if pair.distinguishable)
    note = (
        "Only first, only second: questions that one of the two alone gets right. Answers differ: share of"
        " questions with another answer, right or wrong. Bold: told apart."
    )
    top = order[:MOST_MODELS]
    among = [at for at, pair in enumerate(ranked) if pair.first in top and pair.second in top]
    chosen = f"the pairs of the {word(len(top))} most accurate models"
    cut = Cut(len(among), among, chosen, "pairs.csv") if len(order) > MOST_MODELS else Cut(all_in="pairs.csv")
    return [told, figure, Table("Every pair on the same questions", columns, rows, strong, note, cut)]


def _figure(measures: Measures, benchmark: Benchmark, pairs: list[Pair], ranked: list[Pair]) -> Figure:
    """Return a line a pair, or a matrix where there are many."""
    names = [measures.label(benchmark, row) for row in range(len(benchmark.rows))]
    name = file_name("differences", benchmark.name, measures)
    if len(pairs) <= FOREST_LIMIT:
        caption = (
            "Difference in accuracy, first less second, with 95% interval. Filled: told apart after Holm's correction."
        )
        return Figure(name, caption, partial(plots.forest, ranked, names))
    order = [model.row for model in measures.accuracy[benchmark.name].models]
    caption = "Row less column, in percentage points. Bold on colour: told apart after Holm; grey: could be chance."
    return Figure(name, caption, partial(plots.difference_matrix, pairs, names, order))


def _repeats(measures: Measures) -> list[Block]:
    repeats = measures.study.repeats
    if not repeats:
        return []
    rows = [
        [r.label, r.benchmark, count(r.questions), f"{count(r.same)} ({percent(r.same / r.questions)})"]
        for r in repeats
    ]
    columns = [
        Column("Model", "left", 1),
        Column("Benchmark", "left"),
        Column("Questions"),
        Column("Same answer"),
    ]
    note = "A second run of the same model with the same settings is no second model: it is held against the first."
    return [
        Heading("Repeated runs"),
        Table("Do repeated runs give the same answers?", columns, rows, note=note),
    ]


def _findings(measures: Measures, benchmark: Benchmark, pairs: list[Pair]) -> list[Finding]:
    order = [model.row for model in measures.accuracy[benchmark.name].models if model.n]
    if len(order) < 2 or not any(pair.changed or pair.result.difference for pair in pairs):
        return []
    best, second = order[:2]
    pair = next(p for p in pairs if {p.first, p.second} == {best, second})
    findings = [_best(measures, benchmark, pair)]
    alike = [p for p in pairs if not p.distinguishable]
    if alike and len(pairs) > 1 and len(order) > 2:
        told = (f"{measures.label(benchmark, p.first)} and {measures.label(benchmark, p.second)}" for p in alike)
        names = "; ".join(told) if len(alike) <= 3 else ""
        which = f": {names}" if names else ""
        subject = f"{word(len(alike)).capitalize()} of {word(len(pairs))} pairs of models"
        text = f"{subject} cannot be told apart on these questions{which} (McNemar's exact test, Holm over the pairs)."
        findings.append(Finding(f"{len(alike)} of {len(pairs)}", text, 62))
    return findings + _settings(measures, benchmark, pairs)


def _best(measures: Measures, benchmark: Benchmark, pair: Pair) -> Finding:
    first, second = measures.label(benchmark, pair.first), measures.label(benchmark, pair.second)
    result = pair.result
    within = f"(95%: {points(result.low)} to {points(result.high)})"
    took = _time_ratio(measures, benchmark, pair)
    if pair.distinguishable:
        text = (
            f"{first} beats {second} by {points(result.difference)} points {within} on the same "
            f"{count(result.n)} questions{took}."
        )
    else:
        text = (
            f"{first} and {second} cannot be told apart on the same {count(result.n)} questions: "
            f"{points(result.difference, sign=True)} points {within}, {p_value(pair.p_holm)}{took}."
        )
    return Finding(f"{points(result.difference, sign=True)} pts", text, 95)


def _time_ratio(measures: Measures, benchmark: Benchmark, pair: Pair) -> str:
    """Return ", and takes 0.7 of the time" where both were timed on the same machine."""
    a, b = (measures.study.entries[benchmark.rows[row]] for row in (pair.first, pair.second))
    if not a.cost or not b.cost or not a.cost.real_s or not b.cost.real_s or dict(a.machine) != dict(b.machine):
        return ""
    if a.cost.questions != b.cost.questions:
        return ""
    factor = a.cost.real_s / b.cost.real_s
    return ", in the same time" if 0.95 <= factor <= 1.05 else f", and takes {ratio(factor)} times as long"


def _settings(measures: Measures, benchmark: Benchmark, pairs: list[Pair]) -> list[Finding]:
    """Say what one setting changes, model by model: precision, device, machine."""
    findings = []
    for pair in pairs:
        a, b = (measures.study.entries[benchmark.rows[row]] for row in (pair.first, pair.second))
        if a.info.id != b.info.id:
            continue
        result = pair.result
        sure = "distinguishable" if pair.distinguishable else "not distinguishable from no difference"
        text = (
            f"{a.label} and {b.label} are the same model under other settings:"
            f" {points(result.difference, sign=True)} points ({interval(result.low, result.high)}), {sure};"
            f" {count(pair.changed)} of {count(result.n)} answers differ."
        )
        weight = 75 if (a.info.quantization or "none") != (b.info.quantization or "none") else 58
        findings.append(Finding(f"{points(result.difference, sign=True)} pts", text, weight))
    return findings[:2] if len(findings) <= 2 else [_settings_together(findings)]


def _settings_together(findings: list[Finding]) -> Finding:
    strongest = max(findings, key=lambda f: (f.weight, "not dis" not in f.sentence))
    more = f" {word(len(findings) - 1).capitalize()} more such comparisons stand under Differences."
    return Finding(strongest.number, strongest.sentence + more, strongest.weight)


SECTION = Section("differences", "Differences between models", _wanted, build)
