"""Error overlap: whether all models miss the same questions, and with the same wrong answer."""

import math
from functools import partial

from llmjobs.report import wording
from llmjobs.report.blocks import Block, Column, Content, Cut, Figure, Finding, Heading, Prose, Table
from llmjobs.report.figures import overlap as plots
from llmjobs.report.measure import Measures
from llmjobs.report.measure.faulty import faulty_columns
from llmjobs.report.measure.overlap import Overlap, PairOverlap, measure_overlap
from llmjobs.report.sections.base import Section
from llmjobs.report.sections.file_names import file_name
from llmjobs.report.sections.missed import missed_blocks
from llmjobs.report.wording import (
    DASH,
    all_of,
    count,
    decimal,
    interval,
    p_value,
    percent,
    plain_p,
    plural,
    points,
    sentence,
    word,
)
from llmjobs.report.write.notes import SAME
from llmjobs.statistics.intervals import Interval

MATRIX_LIMIT = 3
MOST_IN_SETS = 20
"""Models at most whose sets are drawn: of more, nearly every question has a set of its own."""
MOST_PAIRS = 40
FEWEST_SHARED = 10
"""Questions that all models miss, below which no sentence is made of their wrong answers."""


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
        notes += [(SAME, finding.sentence) for finding in said]
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
    who = all_of(models) + " models"
    text = (
        f"{who.capitalize()} miss {count(everyone)} of {plural(total, 'question')} ({percent(everyone / total)});"
        f" {wording.expected(float(found.expected[-1]))} would be expected if mistakes were independent within each"
        f" subject: {_beyond(found.excess)} ({p_value(found.all_p)}, permutation within subjects)."
        f" {sentence(who)} are right on {count(int(found.missed_by[0]))}, where"
        f" {wording.expected(float(found.expected[0]))} would be expected.{one_each}"
    )
    caption = (
        "Questions by the number of models that miss them, beside what independent mistakes would give. More at both"
        " ends and fewer in the middle than expected: the models find the same questions hard."
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
        Column("p (Holm)"),
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
        "Expected: both wrong, were mistakes independent within each subject; p: exact, one-sided, adjusted by"
        " Holm for the number of pairs. φ: correlation of the mistakes (0: independent). κ: error consistency beyond"
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
        plain_p(pair.p_holm),
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
    best = measures.label(found.benchmark, found.best)
    gain = found.majority_gain
    rows = []
    for label, value in (
        (f"Best single model, chosen on these questions: {best}", found.best_alone),
        ("Majority vote (ties to the more accurate model)", found.majority),
        ("At least one model is right", found.oracle),
    ):
        rows.append([label, percent(value.value), interval(value.low, value.high)])
    independent = 1 - float(found.expected[-1]) / len(found.columns)
    rows.append(["At least one is right, were mistakes independent within subjects", percent(independent), DASH])
    if found.guessers:
        many = word(len(found.rows))
        rows.append([f"At least one of {many} blind guessers is right", percent(found.guessers), DASH])
    columns = [Column("Who answers", "left", 1), Column("Right"), Column("95% interval")]
    note = (
        f"Majority vote less {best}: {points(gain.difference, sign=True)} points on the same questions (95%:"
        f" {interval(gain.low, gain.high)}; {p_value(gain.p)}, McNemar's exact test)."
    )
    return [Table("What the models would score together", columns, rows, note=note)]


def _beyond(excess: Interval) -> str:
    """``150 more than that (95%: 128 to 172 more)``; with a minus where fewer."""
    ends = " to ".join(decimal(end, 0 if abs(excess.value) >= 10 else 1) for end in excess[1:])
    if abs(excess.value) < 0.05:
        return f"as many as that (95% of the difference: {ends})"
    size = wording.expected(abs(excess.value))
    return f"{size} {'more' if excess.value >= 0 else 'fewer'} than that (95% of the difference: {ends})"


def _findings(measures: Measures, found: Overlap) -> list[Finding]:
    everyone, total, models = int(found.missed_by[-1]), len(found.columns), len(found.rows)
    name = found.benchmark.name
    if int(found.missed_by[0]) == total:
        text = f"On {name}, no model misses any of the {plural(total, 'question')}: there are no mistakes to compare."
        return [Finding("0", text, 90)]
    who = f"{all_of(models)} models"
    expected = wording.expected(float(found.expected[-1]))
    letters = (
        ""
        if math.isnan(found.letter_expected)
        else f" (within each subject and right letter, {wording.expected(found.letter_expected)})"
    )
    text = (
        f"On {name}, {who} miss {count(everyone)} of {plural(total, 'question')}; mistakes that are independent within"
        f" each subject would give {expected}{letters}: {_beyond(found.excess)}. {_verdict(found)}"
        f"{_faulty(measures, found)}"
    )
    findings = [Finding(count(everyone), text, 90)]
    same = found.same_answer
    if same is not None and same.n >= FEWEST_SHARED:
        between = "they" if models == 2 else "two of them, on average,"
        gap = f"{points(same.excess.value, sign=True)} points, 95%: {interval(same.excess.low, same.excess.high)}"
        sure = same.p < 0.05 and same.excess.low > 0
        told = "the mistakes lead to the same options"
        if not sure:
            hint = "test and interval disagree, which makes it a hint at most"
            told = hint if same.p < 0.05 or same.excess.low > 0 else "that is no evidence for common wrong answers"
        text = (
            f"On the {count(same.n)} questions of {name} that {who} miss, {between} give the same wrong answer"
            f" {percent(same.share, 0)} of the time; their own preferences for letters would give"
            f" {percent(same.habit, 0)} ({gap}; {p_value(same.p)}): {told}."
        )
        findings.append(Finding(percent(same.share, 0), text, 88 if sure else 60))
    return [*findings, *_together(measures, found)]


def _verdict(found: Overlap) -> str:
    """What the tests say: of all models together, and of how many pairs."""
    sure = found.all_p < 0.05 and found.excess.low > 0
    p = p_value(found.all_p)
    hard = f"the same questions hard ({p})"
    if not math.isnan(found.letter_p):
        by_letter = f"{p}, by right letter {p_value(found.letter_p)}"
        hard = (
            f"the same questions hard ({by_letter})"
            if found.letter_p < 0.05
            else f"the same questions hard, which their preferences for letters may explain ({by_letter})"
        )
    if len(found.rows) == 2:
        return f"The two find {hard}." if sure else f"This shows no shared mistakes beyond chance ({p})."
    pairs = len(found.pairs)
    shared = sum(pair.p_holm < 0.05 for pair in found.pairs)
    many = f"{count(shared)} of {count(pairs)} pairs of models share more mistakes than independence gives (Holm)"
    if sure:
        return f"The models find {hard}; {many}."
    return f"All together that shows no shared mistakes beyond chance ({p}); {many}."


def _faulty(measures: Measures, found: Overlap) -> str:
    """Say what is left without the questions whose label is called faulty."""
    kept = measures.without_faulty.get(found.benchmark.name)
    again = measure_overlap(measures.study, kept, pairs=False) if kept is not None else None
    if again is None:
        return ""
    faulty, _ = faulty_columns(measures.study, found.benchmark)
    among = len(set(map(int, faulty)) & set(found.all_missed))
    return (
        f" Of the {count(len(found.all_missed))}, {count(among)} have a label that the notes call faulty; without all"
        f" {count(len(faulty))} such questions it is {count(int(again.missed_by[-1]))} of {count(len(again.columns))},"
        f" expected {wording.expected(float(again.expected[-1]))} ({p_value(again.all_p)})."
    )


def _together(measures: Measures, found: Overlap) -> list[Finding]:
    if len(found.rows) < 3 or found.missed_by[0] + found.missed_by[-1] == len(found.columns):
        return []
    gain, best = found.majority_gain, measures.label(found.benchmark, found.best)
    size = f"{points(gain.difference, sign=True)} points; 95%: {interval(gain.low, gain.high)}"
    if gain.p < 0.05 and not gain.low <= 0 <= gain.high:
        versus = f"{'more' if gain.difference > 0 else 'less'} than {best} alone ({size})"
    else:
        versus = f"which cannot be told apart from {best} alone ({size})"
    independent = 1 - float(found.expected[-1]) / len(found.columns)
    guess = f"{word(len(found.rows))} blind guessers {percent(found.guessers, 0)}, " if found.guessers else ""
    text = (
        f"On {found.benchmark.name}, at least one of the {word(len(found.rows))} models is right on"
        f" {percent(found.oracle.value, 0)} of the questions ({guess}these models with independent mistakes"
        f" {percent(independent, 0)}); their majority vote gets {percent(found.majority.value)}, {versus}."
    )
    return [Finding(percent(found.oracle.value, 0), text, 50)]


SECTION = Section("overlap", "Do the models miss the same questions?", _wanted, build)
