"""Error overlap: whether all models miss the same questions, and with the same wrong answer."""

import math
from functools import partial

from llmjobs.report import wording
from llmjobs.report.blocks import Block, Column, Content, Cut, Figure, Finding, Heading, Prose, Table
from llmjobs.report.figures import overlap as plots
from llmjobs.report.measure import Measures
from llmjobs.report.measure.overlap import Overlap, PairOverlap
from llmjobs.report.sections.base import Section
from llmjobs.report.sections.file_names import file_name
from llmjobs.report.sections.missed import missed_blocks
from llmjobs.report.wording import count, decimal, interval, p_value, percent, plain_p, points, word
from llmjobs.report.write.notes import SAME

MATRIX_LIMIT = 3
MOST_IN_SETS = 20
"""Models at most whose sets are drawn: of more, nearly every question has a set of its own."""
MOST_PAIRS = 40


def _wanted(measures: Measures) -> bool:
    return bool(measures.overlap)


def build(measures: Measures) -> Content:
    """Hold the shared mistakes against what independence would give."""
    blocks: list[Block] = []
    findings: list[Finding] = []
    notes: list[tuple[str, str]] = []
    for name, found in measures.overlap.items():
        if len(measures.overlap) > 1:
            blocks.append(Heading(name))
        blocks += _missed(measures, name, found)
        blocks += _pairs(measures, name, found)
        blocks += _ensembles(measures, name, found)
        blocks += missed_blocks(measures, found)
        said = _findings(measures, found)
        notes += [(SAME, f"{name}: {finding.sentence}") for finding in said]
        if found.benchmark is measures.study.main:
            findings += said
    return Content(blocks, findings, notes)


def _names(measures: Measures, found: Overlap) -> list[str]:
    return [measures.label(found.benchmark, row) for row in found.rows]


def _missed(measures: Measures, name: str, found: Overlap) -> list[Block]:
    total, everyone = len(found.columns), int(found.missed_by[-1])
    models = len(found.rows)
    left_out = len(found.benchmark.rows) - models
    one_each = (
        f" One run of each model is compared here ({left_out} with other settings left out), since the same"
        " weights miss the same questions by construction."
        if left_out
        else ""
    )
    text = (
        f"{count(everyone)} of {count(total)} questions ({percent(everyone / total)}) are missed by all"
        f" {word(models)} models, where {wording.expected(float(found.expected[-1]))} would be expected if"
        " the models' mistakes were independent within each subject (permutation within subjects,"
        f" {p_value(found.all_p)}); {count(int(found.missed_by[0]))} are answered by all, where"
        f" {wording.expected(float(found.expected[0]))} would be expected.{one_each}"
    )
    caption = (
        "Questions by the number of models that miss them. More at both ends and fewer in the middle than"
        " expected means that the models find the same questions hard."
    )
    upset_caption = (
        "Which models miss a question together: each column is one set of models, with the number of"
        " questions that just this set misses; the most frequent sets, the set of all models in the second"
        " colour."
    )
    blocks: list[Block] = [
        Prose(text),
        Figure(file_name("missed", name, measures), caption, partial(plots.missed_by, found)),
    ]
    if found.combinations and models <= MOST_IN_SETS:
        draw = partial(plots.upset, found, _names(measures, found))
        blocks.append(Figure(file_name("upset", name, measures), upset_caption, draw))
    return blocks


def _pairs(measures: Measures, name: str, found: Overlap) -> list[Block]:
    names = {row: measures.label(found.benchmark, row) for row in found.rows}
    columns = [
        Column("First", "left", 1),
        Column("Second", "left", 1),
        Column("Both wrong"),
        Column("Expected"),
        Column("p"),
        Column("φ"),
        Column("Jaccard"),
        Column("by chance"),
        Column("κ"),
        Column("CAPA"),
    ]
    rows = [_pair_row(names, pair) for pair in found.pairs]
    source = {pair.capa_from for pair in found.pairs if pair.capa_from}
    from_ = (
        "the recorded option probabilities"
        if source == {"probabilities"}
        else ("letters alone, no probabilities being recorded" if source == {"letters"} else "probabilities or letters")
    )
    note = (
        "Expected: both wrong, were mistakes independent within each subject; p: one-sided, by permutation"
        " within subjects. φ: correlation of the mistakes (0: independent). κ: error consistency beyond"
        f" the two accuracies. CAPA: agreement of answers beyond chance, from {from_}."
    )
    blocks: list[Block] = [Heading("Pairs of models")]
    if len(found.rows) >= MATRIX_LIMIT:
        caption = (
            "Below the diagonal: φ, the correlation of mistakes. Above: of the questions that both miss,"
            " the share with the same wrong answer."
        )
        draw = partial(plots.likeness, found, list(names.values()))
        blocks.append(Figure(file_name("likeness", name, measures), caption, draw))
    order = sorted(range(len(rows)), key=lambda at: -_known(found.pairs[at].errors.phi))
    cut = Cut(MOST_PAIRS, order, "the pairs whose mistakes are most alike, by φ", "overlap.csv")
    blocks.append(Table("Shared mistakes of every pair", columns, rows, note=note, cut=cut))
    same = [pair for pair in found.pairs if pair.same.n]
    return blocks + (_same_wrong(names, same) if same else [])


def _pair_row(names: dict[int, str], pair: PairOverlap) -> list[str]:
    e = pair.errors
    return [
        names[pair.first],
        names[pair.second],
        count(e.both_wrong),
        decimal(e.expected_in_strata, 1),
        plain_p(e.p),
        decimal(e.phi),
        decimal(e.jaccard),
        decimal(e.jaccard_expected),
        decimal(e.kappa),
        decimal(pair.capa),
    ]


def _same_wrong(names: dict[int, str], pairs: list[PairOverlap]) -> list[Block]:
    columns = [
        Column("First", "left", 1),
        Column("Second", "left", 1),
        Column("Both wrong"),
        Column("Same answer"),
        Column("Equal chances"),
        Column("Letter habits"),
        Column("p"),
    ]
    rows = [
        [names[p.first], names[p.second], count(p.same.n), percent(p.same.share), percent(p.same.chance),
         percent(p.same.habit), plain_p(p.same.p)]
        for p in pairs
    ]  # fmt: skip
    note = (
        "Both wrong: with an answer that could be read. Equal chances: any wrong option as likely as"
        " another. Letter habits: what the two models' own choice of letters would give if it had nothing"
        " to do with the question (shuffled among questions with the same gold letter); p is against these."
    )
    order = sorted(range(len(rows)), key=lambda at: (pairs[at].same.p, -pairs[at].same.share))
    cut = Cut(MOST_PAIRS, order, "the pairs with the smallest p", "overlap.csv")
    return [Table("When both are wrong, is it the same wrong answer?", columns, rows, note=note, cut=cut)]


def _known(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _ensembles(measures: Measures, name: str, found: Overlap) -> list[Block]:
    accuracies = {m.row: m.interval for m in measures.accuracy[name].models if m.row in found.rows}
    best = max(accuracies, key=lambda row: accuracies[row].value)
    rows = []
    for label, value in (
        (f"Best single model: {measures.label(found.benchmark, best)}", accuracies[best]),
        ("Majority vote (ties to the more accurate model)", found.majority),
        ("Oracle: at least one model is right", found.oracle),
    ):
        rows.append([label, percent(value.value), interval(value.low, value.high)])
    columns = [Column("Who answers", "left", 1), Column("Right"), Column("95% interval")]
    return [Table("What the models would score together", columns, rows)]


def _findings(measures: Measures, found: Overlap) -> list[Finding]:
    everyone, total, models = int(found.missed_by[-1]), len(found.columns), len(found.rows)
    if int(found.missed_by[0]) == total:
        return [
            Finding("0", f"No model misses any of the {count(total)} questions: there are no mistakes to compare.", 90)
        ]
    both = "both models miss" if models == 2 else f"all {word(models)} models miss"
    expected = float(found.expected[-1])
    chance = f"independent mistakes would give {wording.expected(expected)} ({p_value(found.all_p)}, within subjects)"
    findings = [
        Finding(
            count(everyone),
            f"{both[:1].upper()}{both[1:]} {count(everyone)} of {count(total)} questions; {chance}. "
            + _verdict(found.all_p),
            90,
        )
    ]
    if found.all_missed and not math.isnan(found.all_pair_share) and everyone >= 10:
        who = "they give" if models == 2 else "two of them give, on average,"
        findings.append(
            Finding(
                percent(found.all_pair_share, 0),
                f"On the questions that {both}, {who} the same wrong answer"
                f" {percent(found.all_pair_share, 0)} of the time; equal chances would give"
                f" {percent(found.all_pair_chance, 0)}.",
                88,
            )
        )
    return [*findings, *_together(measures, found)]


def _verdict(p: float) -> str:
    if p < 0.01:
        return "Mistakes are shared, not random."
    return "Probably more than chance." if p < 0.05 else "That is no more than chance may give."


def _together(measures: Measures, found: Overlap) -> list[Finding]:
    if len(found.rows) < 3 or found.missed_by[0] + found.missed_by[-1] == len(found.columns):
        return []
    best = max(m.interval.value for m in measures.accuracy[found.benchmark.name].models if m.row in found.rows)
    gain = found.majority.value - best
    versus = (
        f"{points(abs(gain))} points {'above' if gain > 0 else 'below'} the best model alone"
        if abs(gain) >= 0.0005
        else "just what the best model gets alone"
    )
    return [
        Finding(
            percent(found.oracle.value, 0),
            f"At least one of the {word(len(found.rows))} models is right on"
            f" {percent(found.oracle.value, 0)} of the questions; their majority vote gets"
            f" {percent(found.majority.value)}, {versus}.",
            50,
        )
    ]


SECTION = Section("overlap", "Do the models miss the same questions?", _wanted, build)
