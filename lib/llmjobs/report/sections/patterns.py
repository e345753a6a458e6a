"""Patterned or random? Each model's mistakes by subject, letter, position, length and confidence."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure as Plot

from llmjobs.report import figure_style
from llmjobs.report.blocks import (
    Block,
    Column,
    Content,
    Figure,
    Finding,
    Heading,
    Prose,
    Section,
    Table,
    few,
    file_name,
)
from llmjobs.report.figure_style import short_names
from llmjobs.report.measure import Measures
from llmjobs.report.measure.overlap import representatives
from llmjobs.report.measure.patterns import ModelPatterns
from llmjobs.report.numbers import count, decimal, interval, p_value, percent, plain_p, points
from llmjobs.report.study import Benchmark
from llmjobs.report.wording import DASH, all_of, any_of, listed, plural, sentence, strength, word
from llmjobs.report.write.notes import PATTERNED
from llmjobs.statistics.intervals import Interval


def letters(models: Sequence[tuple[str, ModelPatterns]]) -> Plot:
    """Small multiples: how often each letter is chosen (bars) and how often it is right (marks)."""
    total, models = len(models), models[: figure_style.MOST_PANELS]
    columns = min(4, max(len(models), 2))
    rows = -(-len(models) // columns)
    names = short_names([label for label, _ in models], 22)
    highest = max(
        float(max(m.chosen.max() / max(m.chosen.sum(), 1), m.gold.max() / max(m.gold.sum(), 1))) for _, m in models
    )
    with figure_style.styled():
        figure = figure_style.blank(0.35 + 1.3 * rows)
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(models):
                axes.set_visible(False)
                continue
            found = models[place][1]
            x = np.arange(len(found.chosen))
            chosen = found.chosen / max(found.chosen.sum(), 1)
            gold = found.gold / max(found.gold.sum(), 1)
            ink = figure_style.ORANGE if found.one_letter else figure_style.BLUE
            axes.bar(x, chosen, 0.62, color=ink)
            axes.plot(x, gold, "_", color=figure_style.INK, ms=13, mew=1.4)
            for at, share in enumerate(chosen):
                inside = share > 0.12 * highest
                axes.annotate(
                    f"{100 * share:.0f}",
                    (at, 0 if inside else max(share, gold[at])),
                    xytext=(0, 2),
                    ha="center",
                    textcoords="offset points",
                    fontsize=7,
                    color="white" if inside else figure_style.INK,
                )
            axes.set_xticks(x, [chr(ord("A") + letter) for letter in x])
            axes.set_title(names[place], fontsize=8)
            axes.set_ylim(0, min(1.12, highest * 1.2))
            figure_style.percent_axis(axes, "y")
            figure_style.light_grid(axes, "y")
            axes.tick_params(axis="x", length=0, labelcolor=figure_style.INK)
        if len(models) < total:
            figure_style.say(figure, figure_style.left_out(len(models), total, "letters.csv"))
    return figure


MOST_SAID = 20
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _wanted(measures: Measures) -> bool:
    return any(model.n for models in measures.patterns.values() for model in models)


def build(measures: Measures) -> Content:
    """What the mistakes of every model depend on."""
    blocks: list[Block] = [
        Prose(
            "Random mistakes would not depend on the subject, the letter of the right answer, or the length of the"
            " question. Each test below looks for one of these patterns. The effect is the strength of the pattern; p"
            " is the probability that chance alone gives one at least as strong (adjusted by Holm's method over the"
            " tests of a model). With many questions even a weak pattern has a small p, so read the effect first. The"
            " intervals in the sentences hold for all tests of one model together at 95%."
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
                    f" guessing ({p_value(model.below_p)}). Lack of knowledge does not explain this. First"
                    " check the prompt and how the replies are parsed.",
                    "Below chance.",
                    "alarm",
                )
            )
        if model.one_letter:
            letter, share = model.top_letter
            right = model.gold[letter] / model.gold.sum()
            text = (
                f"{name} answers {LETTERS[letter]} to {percent(share)} of {_lettered(model)}, although it is right"
                f" for only {percent(float(right))}. {_beyond_letters(model)}"
            )
            blocks.append(Prose(text, "Most answers are one letter.", "alarm"))
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
        "Above chance: exact binomial test, one-sided, adjusted by Holm's method over the models."
        " Subjects: does accuracy differ between subjects (χ², permutation; Cramér's V, 0 none, 1 complete)?"
        " Letters moved: share of answers that would have to change for each letter to be chosen as often"
        " as it is right (Stuart-Maxwell). Position: does accuracy depend on which letter is right? Length:"
        " probability that, of a right and a wrong answer in the same subject, the right one belongs to the longer"
        " question (0.5: no effect)."
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
    """Sentences on one model: which patterns its mistakes show, how strong they are, and which were not found."""
    found: list[str] = []
    absent: list[str] = []
    for name, tell in (("subjects", _on_subjects), ("letters", _on_letters), ("position", _on_position),
                       ("length", _on_length)):  # fmt: skip
        if getattr(model, name) is not None:
            (found if model.p_holm[name] < 0.05 else absent).append(tell(model, model.p_holm[name] < 0.05))
    parts = []
    if found or absent:
        lead = f"mistakes show a pattern ({count(len(found))} of {plural(len(found) + len(absent), 'test')})"
        parts.append(f"{lead if found else 'no pattern found'}: {'; '.join([*found, *absent])}")
    if model.at_chance:
        parts.append(
            f"no evidence that it does better than blind guessing ({percent(model.right / model.n)} right, guessing"
            f" {percent(model.chance)})"
        )
    if model.calibration is not None and not math.isnan(model.calibration.auroc):
        sep, gap = model.calibration.auroc, model.calibration.confidence - model.calibration.accuracy
        parts.append(
            f"its confidence is {points(abs(gap))} points {'above' if gap > 0 else 'below'} its accuracy on average;"
            f" a right answer has higher confidence than a wrong one {percent(sep, 0)} of the time (50%: no"
            " information)"
        )
    return ". ".join(map(sentence, parts)) + ("." if parts else "")


def _on_subjects(model: ModelPatterns, sure: bool) -> str:
    test = model.subjects
    if test is None or test.size is None:
        return ""
    spread = f"{points(test.size.value)} points (95%: {interval(test.size.low, test.size.high)}"
    effect = f"V {decimal(test.effect)}, a {strength(test.effect)} effect"
    if sure:
        return f"accuracy differs between subjects, with a standard deviation of {spread}; {effect})"
    return (
        "no difference between subjects was found; a standard deviation of up to"
        f" {points(test.size.high)} points is compatible with the data"
    )


def _on_letters(model: ModelPatterns, sure: bool) -> str:
    letter, gap = _most_moved(model)
    size = f"{points(gap.value, sign=True)} points ({interval(gap.low, gap.high)})"
    if sure:
        way = "more" if gap.value > 0 else "less"
        return f"{LETTERS[letter]} is chosen {way} often than it is right, {size}"
    return f"no preferred letter was found; the largest gap is {size}, for {LETTERS[letter]}"


def _on_position(model: ModelPatterns, sure: bool) -> str:
    test = model.position
    if test is None or test.size is None:
        return ""
    if sure:
        worst, best = _ends(model.by_position)
        return (
            f"it gets {percent(model.by_position[best], 0)} right where the answer is {LETTERS[best]} and"
            f" {percent(model.by_position[worst], 0)} where it is {LETTERS[worst]} (V {decimal(test.effect)}, a"
            f" {strength(test.effect)} effect)"
        )
    return (
        "no dependence on the letter of the right answer was found; a standard deviation of up to"
        f" {points(test.size.high)} points is compatible with the data"
    )


def _on_length(model: ModelPatterns, sure: bool) -> str:
    test = model.length
    if test is None or test.size is None:
        return ""
    size = f"{percent(test.size.value, 0)} ({interval(test.size.low, test.size.high)}; no effect: 50%)"
    pairs = (
        f"in {size} of the pairs of a right and a wrong answer in one subject, the right one has the longer question"
    )
    if sure:
        return f"{'longer' if test.effect < 0.5 else 'shorter'} questions are missed more often: {pairs}"
    return f"no effect of length was found: {pairs}"


def _lettered(model: ModelPatterns) -> str:
    """Count the questions with options whose reply gave a letter."""
    return f"{plural(int(model.gold.sum()), 'question')} with lettered options"


def _beyond_letters(model: ModelPatterns) -> str:
    """Compare accuracy with the score of the model's letters if they were assigned to the questions at random."""
    alone = f"If its letters were assigned to the questions at random, it would score {percent(model.alone)}"
    if model.beyond_alone_p < 0.05:
        more = points(model.lettered_right - model.alone, sign=True)
        return f"{alone}; it scores {percent(model.lettered_right)} ({more} points, {p_value(model.beyond_alone_p)})."
    return (
        f"{alone}. Its {percent(model.lettered_right)} cannot be told apart from that"
        f" ({p_value(model.beyond_alone_p)}): there is no evidence that its accuracy comes from more than that letter."
    )


def _most_moved(model: ModelPatterns) -> tuple[int, Interval]:
    letter = max(range(len(model.gaps)), key=lambda place: abs(model.gaps[place].value))
    return letter, model.gaps[letter]


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
        Figure(file_name("letters", benchmark.name, measures), caption, partial(letters, lettered)),
    ]


def _findings(measures: Measures, benchmark: Benchmark, models: Sequence[ModelPatterns]) -> list[Finding]:
    findings = [*_against_chance(measures, benchmark, models)]
    one = [model for model in models if model.one_letter]
    if one:
        model = max(one, key=lambda m: m.top_letter[1])
        letter, share = model.top_letter
        others = listed(measures.label(benchmark, other.row) for other in one if other is not model)
        verb = "answers" if len(one) == 2 else "answer"
        more = f" {others} also {verb} mostly with one letter." if others else ""
        text = (
            f"On {benchmark.name}, {measures.label(benchmark, model.row)} answers {LETTERS[letter]} to"
            f" {percent(share, 0)} of {_lettered(model)}, although it is right"
            f" for only {percent(float(model.gold[letter] / model.gold.sum()), 0)}. {_beyond_letters(model)}{more}"
        )
        findings.append(Finding(percent(share, 0), text, 96, alarm=True))
    return [*findings, *_patterned(measures, benchmark, models)]


def _against_chance(measures: Measures, benchmark: Benchmark, models: Sequence[ModelPatterns]) -> list[Finding]:
    """Name the models below blind guessing, and those without evidence of being above it."""
    findings = []
    for chosen, weight, verdict in (
        ([model for model in models if model.below_chance], 99,
         "below blind guessing, which lack of knowledge does not explain. First check the prompt and the parsing of"
         " replies"),
        ([model for model in models if model.at_chance], 93,
         "no evidence that it is better than blind guessing"),
    ):  # fmt: skip
        if not chosen:
            continue
        accuracy = {model.row: measures.accuracy[benchmark.name].of(model.row).interval for model in chosen}
        model = min(chosen, key=lambda m: accuracy[m.row].value)
        value, low, high = accuracy[model.row]
        p = model.below_p if model.below_chance else model.above_p
        others = listed(measures.label(benchmark, other.row) for other in chosen if other is not model)
        more = f" The same holds for {others}." if others else ""
        text = (
            f"On {benchmark.name}, {measures.label(benchmark, model.row)} has {percent(value)} right (95%:"
            f" {interval(low, high)}), where blind guessing gets {percent(model.chance)}: {verdict} (exact binomial"
            f" test, {p_value(p)}).{more}"
        )
        findings.append(Finding(percent(value), text, weight, alarm=True))
    return findings


KINDS = {"subjects": "subjects", "letters": "preferred letters", "position": "which letter is right",
         "length": "the length of the question"}  # fmt: skip


def _patterned(measures: Measures, benchmark: Benchmark, models: Sequence[ModelPatterns]) -> list[Finding]:
    """One sentence: whether mistakes show patterns, which, and the strongest case."""
    stands = representatives(measures.study, benchmark)
    tested = [model for model in models if model.p_holm and stands[model.row] == model.row]
    if not tested:
        return []
    sure = {kind: [m for m in tested if m.p_holm.get(kind, 1.0) < 0.05] for kind in KINDS}
    patterned = [model for model in tested if any(model in found for found in sure.values())]
    some = all_of(len(tested)) if len(patterned) == len(tested) else f"{word(len(patterned))} of {word(len(tested))}"
    many = f" of {some} models" if len(tested) > 1 else ""
    if not patterned:
        asked = listed(KINDS[kind] for kind in KINDS if any(kind in model.p_holm for model in tested))
        many = f" of {any_of(len(tested), 'model')}" if len(tested) > 1 else ""
        text = f"On {benchmark.name}, no pattern was found in the mistakes{many}. Tested: {asked}."
        return [Finding("0", text, 45)]
    counts = listed(f"{KINDS[kind]} ({count(len(found))})" for kind, found in sure.items() if found)
    strongest = _strongest(measures, benchmark, sure)
    text = f"On {benchmark.name}, the mistakes{many} show a pattern: they depend on {counts}. {strongest}"
    return [Finding(f"{len(patterned)} of {len(tested)}", text, 70)]


def _strongest(measures: Measures, benchmark: Benchmark, sure: Mapping[str, Sequence[ModelPatterns]]) -> str:
    """Describe the strongest of the patterns that have the same effect size: subjects and right letter."""
    known = [(kind, m) for kind in ("position", "subjects") for m in sure[kind]]
    if not known:
        kind, model = next((kind, found[0]) for kind, found in sure.items() if found)
        tell = _on_letters if kind == "letters" else _on_length
        return f"{measures.label(benchmark, model.row)}: {tell(model, True)}."
    kind, model = max(known, key=lambda found: getattr(found[1], found[0]).effect)
    tell = _on_position if kind == "position" else _on_subjects
    return f"Strongest for {measures.label(benchmark, model.row)}: {tell(model, True)}."


SECTION = Section("patterns", "Patterned or random?", _wanted, build)
