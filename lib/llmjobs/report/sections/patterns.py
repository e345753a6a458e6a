"""Patterned or random? Each model's mistakes by subject, letter, position, length and confidence."""

import math
from collections.abc import Sequence
from functools import partial

from llmjobs.report.blocks import Block, Column, Content, Figure, Finding, Heading, Prose, Table, few
from llmjobs.report.figures import patterns as plots
from llmjobs.report.measure import Measures
from llmjobs.report.measure.patterns import ModelPatterns
from llmjobs.report.sections.base import Section
from llmjobs.report.sections.file_names import file_name
from llmjobs.report.study import Benchmark
from llmjobs.report.wording import DASH, decimal, listed, p_value, percent, plain_p, points, word
from llmjobs.report.write.notes import PATTERNED

MOST_SAID = 20
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _wanted(measures: Measures) -> bool:
    return any(model.n for models in measures.patterns.values() for model in models)


def build(measures: Measures) -> Content:
    """Say of every model what its mistakes depend on."""
    blocks: list[Block] = [
        Prose(
            "Random mistakes would fall evenly: on every subject, whichever letter is right, on short"
            " questions as on long ones. Each test below asks for one such pattern; its effect says how"
            " strong it is, its p how surely it is no chance (adjusted by Holm over the tests of a model)."
            " With many questions weak patterns become sure: read the effect first."
        )
    ]
    findings: list[Finding] = []
    notes: list[tuple[str, str]] = []
    for benchmark in measures.study.benchmarks:
        models = [model for model in measures.patterns[benchmark.name] if model.n]
        order = [found.row for found in measures.accuracy[benchmark.name].models]
        models.sort(key=lambda model: order.index(model.row))
        if not models:
            continue
        if len(measures.study.benchmarks) > 1:
            blocks.append(Heading(benchmark.name))
        blocks += _alarms(measures, benchmark, models)
        blocks += _tests(measures, benchmark, models)
        blocks += _letters(measures, benchmark, models)
        notes += [
            (PATTERNED, f"{benchmark.name}, {measures.label(benchmark, model.row)}: {describe(model)}")
            for model in models
        ]
        if benchmark is measures.study.main:
            findings += _findings(measures, benchmark, models)
    return Content(blocks, findings, notes)


def _alarms(measures: Measures, benchmark: Benchmark, models: Sequence[ModelPatterns]) -> list[Block]:
    blocks: list[Block] = []
    for model in models:
        name = measures.label(benchmark, model.row)
        accuracy = measures.accuracy[benchmark.name].of(model.row).interval.value
        if model.below_chance:
            blocks.append(
                Prose(
                    f"{name} scores {percent(accuracy)}, below the {percent(model.chance)} of blind"
                    f" guessing ({p_value(model.below_p)}). No ignorance does that: look at how its replies"
                    " are read and at the prompt before looking at the model.",
                    "Below chance.",
                    "alarm",
                )
            )
        if model.one_letter:
            letter, share = model.top_letter
            right = model.gold[letter] / model.gold.sum()
            blocks.append(
                Prose(
                    f"{name} answers {LETTERS[letter]} to {percent(share)} of the questions, where"
                    f" {percent(float(right))} is right. Its accuracy says more about that letter than"
                    " about what it knows.",
                    "One letter takes most answers.",
                    "alarm",
                )
            )
    return few(blocks, MOST_SAID, "warnings", "notes.md")


def _tests(measures: Measures, benchmark: Benchmark, models: Sequence[ModelPatterns]) -> list[Block]:
    columns = [
        Column("Model", "left", 1),
        Column("Above chance p"),
        Column("Subjects V"),
        Column("p"),
        Column("Letters moved"),
        Column("p"),
        Column("Position V"),
        Column("p"),
        Column("Length AUC"),
        Column("p"),
    ]
    rows = []
    for model in models:
        cells = [measures.label(benchmark, model.row), plain_p(model.above_p) if model.chance else DASH]
        for name, as_percent in (
            ("subjects", False),
            ("letters", True),
            ("position", False),
            ("length", False),
        ):
            test = getattr(model, name)
            effect = DASH if test is None else percent(test.effect) if as_percent else decimal(test.effect)
            cells += [effect, plain_p(model.p_holm[name]) if name in model.p_holm else DASH]
        rows.append(cells)
    note = (
        "Subjects: does accuracy differ between subjects (χ², permutation; Cramér's V, 0 none, 1 complete)?"
        " Letters moved: share of answers that would have to change for each letter to be chosen as often"
        " as it is right (Stuart-Maxwell). Position: does accuracy depend on which letter is right? Length:"
        " chance that a right answer belongs to the longer question, within subjects (50% none)."
    )
    return [Table("Tests for patterns", columns, rows, note=note), *_sentences(measures, benchmark, models)]


def _sentences(measures: Measures, benchmark: Benchmark, models: Sequence[ModelPatterns]) -> list[Block]:
    blocks: list[Block] = []
    for model in models:
        text = describe(model)
        if text:
            blocks.append(Prose(text, f"{measures.label(benchmark, model.row)}:"))
    return few(blocks, MOST_SAID, "models", "notes.md")


def describe(model: ModelPatterns) -> str:
    """One plain sentence or more on a model's patterns."""
    parts = []
    sure = {name for name, p in model.p_holm.items() if p < 0.05}
    if model.subjects is not None:
        parts.append(
            f"accuracy differs between subjects (V {decimal(model.subjects.effect)})"
            if "subjects" in sure
            else "no difference between subjects beyond chance"
        )
    if model.letters is not None:
        letter, gap = _most_moved(model)
        parts.append(
            f"{LETTERS[letter]} is chosen {points(abs(gap))} points {'more' if gap > 0 else 'less'} often"
            " than it is right"
            if "letters" in sure
            else "no letter is preferred"
        )
    if model.position is not None and "position" in sure:
        worst, best = _ends(model.by_position)
        parts.append(
            f"it gets {percent(model.by_position[best], 0)} right where the answer is {LETTERS[best]} and "
            f"{percent(model.by_position[worst], 0)} where it is {LETTERS[worst]}"
        )
    if model.length is not None:
        way = "longer" if model.length.effect < 0.5 else "shorter"
        parts.append(f"{way} questions are missed more often" if "length" in sure else "length plays no visible part")
    if model.calibration is not None and not math.isnan(model.calibration.auroc):
        sep = model.calibration.auroc
        gap = model.calibration.confidence - model.calibration.accuracy
        way = (
            "too sure of itself" if gap > 0.02 else "not sure enough" if gap < -0.02 else "about as sure as it is right"
        )
        parts.append(f"it is {way}, and a right answer is surer than a wrong one {percent(sep, 0)} of the time")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _most_moved(model: ModelPatterns) -> tuple[int, float]:
    gaps = model.chosen / max(int(model.chosen.sum()), 1) - model.gold / max(int(model.gold.sum()), 1)
    letter = max(range(len(gaps)), key=lambda place: abs(float(gaps[place])))
    return letter, float(gaps[letter])


def _ends(values: Sequence[float]) -> tuple[int, int]:
    known = [place for place, value in enumerate(values) if not math.isnan(value)]
    return min(known, key=lambda place: values[place]), max(known, key=lambda place: values[place])


def _letters(measures: Measures, benchmark: Benchmark, models: Sequence[ModelPatterns]) -> list[Block]:
    lettered = [(measures.label(benchmark, model.row), model) for model in models if model.letters is not None]
    if not lettered:
        return []
    caption = "How often each letter is chosen, in percent (bars), and how often it is right (marks)."
    return [
        Heading("Letters"),
        Figure(file_name("letters", benchmark.name, measures), caption, partial(plots.letters, lettered)),
    ]


def _findings(measures: Measures, benchmark: Benchmark, models: Sequence[ModelPatterns]) -> list[Finding]:
    findings = []
    below = [model for model in models if model.below_chance]
    if below:
        names = listed(measures.label(benchmark, model.row) for model in below)
        worst = min(measures.accuracy[benchmark.name].of(model.row).interval.value for model in below)
        findings.append(
            Finding(
                percent(worst),
                f"{names}: accuracy below blind guessing. Suspect the reading of "
                "replies or the prompt before the model.",
                99,
                alarm=True,
            )
        )
    one = [model for model in models if model.one_letter]
    if one:
        model = max(one, key=lambda m: m.top_letter[1])
        letter, share = model.top_letter
        others = listed(measures.label(benchmark, other.row) for other in one if other is not model)
        more = f", and so it is with {others}" if others else ""
        findings.append(
            Finding(
                percent(share, 0),
                f"{measures.label(benchmark, model.row)} answers {LETTERS[letter]} {percent(share, 0)} of"
                f" the time, where {percent(float(model.gold[letter] / model.gold.sum()), 0)} is right: one"
                f" letter takes most answers{more}.",
                96,
                alarm=True,
            )
        )
    return [*findings, *_patterned(measures, benchmark, models, bool(one))]


def _patterned(
    measures: Measures, benchmark: Benchmark, models: Sequence[ModelPatterns], alarmed: bool
) -> list[Finding]:
    """Say in one sentence for how many models the letter matters, with the strongest case."""
    lettered = [model for model in models if model.position is not None and model.p_holm.get("position", 1.0) < 0.05]
    if not lettered or alarmed:
        return []
    model = max(lettered, key=lambda m: m.position.effect if m.position else 0.0)
    worst, best = _ends(model.by_position)
    name = measures.label(benchmark, model.row)
    gap = model.by_position[best] - model.by_position[worst]
    many = f"{word(len(lettered)).capitalize()} of {word(len(models))} models do" if len(models) > 1 else "It does"
    return [
        Finding(
            f"{100 * gap:.0f} pts",
            f"{name} gets {percent(model.by_position[best], 0)} right where the answer is {LETTERS[best]}"
            f" and {percent(model.by_position[worst], 0)} where it is {LETTERS[worst]}: part of its score"
            f" is a habit of letters. {many} better on some letters than on others beyond chance.",
            70,
        )
    ]


SECTION = Section("patterns", "Patterned or random?", _wanted, build)
