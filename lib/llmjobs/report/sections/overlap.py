"""Error overlap: whether all models miss the same questions, which ones, and with the same wrong answer."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure as Plot

from llmjobs.report import figure_style, numbers
from llmjobs.report.blocks import (
    AnsweredQuestion,
    Block,
    Column,
    Content,
    Cut,
    Figure,
    Finding,
    Heading,
    Prose,
    Questions,
    Section,
    Table,
    file_name,
)
from llmjobs.report.figure_style import short_names
from llmjobs.report.measure import Measures
from llmjobs.report.measure.accuracy import faulty_columns
from llmjobs.report.measure.overlap import Overlap, PairOverlap, measure_overlap
from llmjobs.report.numbers import count, decimal, interval, p_value, percent, plain_p, points
from llmjobs.report.sections.differences import name_both
from llmjobs.report.study import Benchmark
from llmjobs.report.wording import DASH, all_of, listed, plural, sentence, word
from llmjobs.report.write.notes import SAME
from llmjobs.statistics.intervals import Interval

# The questions that every model misses, in readable form, with notes on their labels.

SHOWN = 12
MMLU_NOTE = (
    "About 6.5% of MMLU's labels are wrong or doubtful (MMLU-Redux, arXiv 2406.04127; more than half in"
    " Virology). Such labels are frequent among the questions that every model misses, so read a question before"
    " you blame the model."
)


def missed_blocks(measures: Measures, found: Overlap) -> list[Block]:
    """List the questions that all models miss; those on which most models chose the same answer come first."""
    benchmark = found.benchmark
    readable = [column for column in found.all_missed if benchmark.questions[column] is not None]
    if not found.all_missed:
        return []
    blocks: list[Block] = [Heading("Questions that every model misses")]
    blocks += _label_notes(measures, found)
    if not readable:
        blocks.append(
            Prose("These results do not contain the text of the questions, so they cannot be shown.", kind="note")
        )
        return blocks
    shown = sorted(readable, key=lambda column: (-_agreement(found, column), column))[:SHOWN]
    more = len(found.all_missed) - len(shown)
    intro = (
        f"{count(len(shown))} of {plural(len(found.all_missed), 'question')}. Those on which the most models chose the"
        " same answer come first. The gold answer is bold; each wrong option names the models that chose it."
        + (" The HTML page (--html) shows all of them." if more else "")
    )
    items = [question_block(measures, benchmark, column, found.rows) for column in shown]
    return [*blocks, Prose(intro), Questions(items)]


def _agreement(found: Overlap, column: int) -> int:
    answers = Counter(int(a) for a in found.benchmark.answer[list(found.rows), column] if a >= 0)
    return max(answers.values(), default=0)


def _label_notes(measures: Measures, found: Overlap) -> list[Block]:
    benchmark, notes = found.benchmark, measures.study.label_notes
    keys = [_key(benchmark, column) for column in found.all_missed]
    reviewed = [notes[key] for key in keys if key in notes]
    if not reviewed:
        return [Prose(MMLU_NOTE, kind="note")] if benchmark.name.startswith(("mmlu", "predictions")) else []
    faulty = Counter(note for note in reviewed if note != "ok")
    everywhere = [notes[key] for column in range(benchmark.n) if (key := _key(benchmark, column)) in notes]
    base = sum(note != "ok" for note in everywhere) / len(everywhere)
    kinds = listed(f"{kind} ({number})" for kind, number in faulty.most_common())
    share = faulty.total() / len(reviewed)
    text = (
        f"The label notes cover {count(len(reviewed))} of these {plural(len(keys), 'question')} and mark"
        f" {count(faulty.total())} ({percent(share, 0)}) of them as faulty"
        + (f": {kinds}" if kinds else "")
        + f". Of all {count(len(everywhere))} reviewed questions, {percent(base)} are faulty."
    )
    return [Prose(text), Prose(MMLU_NOTE, kind="note")]


def _key(benchmark: Benchmark, column: int) -> tuple[str, str, str]:
    return (benchmark.name, str(benchmark.subject[column]), benchmark.doc_id[column])


def question_block(measures: Measures, benchmark: Benchmark, column: int, rows: tuple[int, ...]) -> AnsweredQuestion:
    """One question with every option and the models that chose it."""
    question = benchmark.questions[column]
    subject = str(benchmark.subject[column])
    where = f"{subject.replace('_', ' ')}, number {benchmark.doc_id[column]}"
    note = measures.study.label_notes.get(_key(benchmark, column), "")
    noted = "" if note in ("", "ok") else f"label note: {note}"
    chosen: dict[int, list[str]] = {}
    for row in rows:
        chosen.setdefault(int(benchmark.answer[row, column]), []).append(measures.label(benchmark, row))
    if not benchmark.options[column] or question is None or not question.choices:
        options = _written(benchmark, column, chosen)
        return AnsweredQuestion(where, question.text if question else "", options, "gold", noted)
    letters = [benchmark.letter(place) for place in range(len(question.choices))]
    options = [
        (letter, text, _who(chosen.get(place, []), len(rows)))
        for place, (letter, text) in enumerate(zip(letters, question.choices, strict=True))
    ]
    if -1 in chosen:
        options.append(("", "no readable answer", _who(chosen[-1], len(rows))))
    return AnsweredQuestion(where, question.text, options, benchmark.gold[column], noted)


def _written(benchmark: Benchmark, column: int, chosen: dict[int, list[str]]) -> list[tuple[str, str, str]]:
    options = [("gold", benchmark.gold[column], "")]
    for row_answer, names in chosen.items():
        row = next(r for r in range(len(benchmark.rows)) if int(benchmark.answer[r, column]) == row_answer)
        text = benchmark.texts.get((row, column), "") if row_answer >= 0 else "no readable answer"
        options.append(("", text[:400], ", ".join(names)))
    return options


def _who(names: list[str], models: int) -> str:
    if not names:
        return ""
    return f"all {models}" if len(names) == models and models > 1 else ", ".join(names)


UPSET_SETS, MOST_BARS, SHADES = 22, 21, 20


def missed_by(found: Overlap) -> Plot:
    """Draw questions by how many models miss them (bars), and the expectation under independence (diamonds)."""
    places = np.arange(len(found.missed_by))
    with figure_style.styled():
        figure = figure_style.blank(2.5)
        axes = figure.subplots()
        axes.bar(places, found.missed_by, 0.62, color=figure_style.BLUE, label="observed")
        axes.plot(
            places,
            found.expected,
            "D",
            color=figure_style.ORANGE,
            ms=5,
            mec="white",
            mew=0.6,
            label="expected if mistakes were independent within each subject",
        )
        highest = float(max(found.missed_by.max(), found.expected.max()))
        many = len(places) > MOST_BARS
        for place in [] if many else places:
            number = int(found.missed_by[place])
            inside, low = number > 0.16 * highest, found.expected[place] > 0.5 * number
            axes.annotate(
                count(number),
                (place, (0 if low else number) if inside else max(number, found.expected[place])),
                xytext=(0, 4 if low or not inside else -11),
                fontsize=8,
                textcoords="offset points",
                ha="center",
                color="white" if inside else figure_style.INK,
                fontweight="bold",
            )
        step = -(-len(places) // MOST_BARS)
        ticks = [str(place) for place in places[::step]]
        ticks[0] = "none"
        if not many:
            ticks[-1] = f"all {places[-1]}"
        axes.set_xticks(places[::step], ticks)
        axes.set_xlabel("models that miss the question")
        axes.set_ylabel("questions")
        axes.margins(y=0.14)
        axes.yaxis.set_major_formatter(lambda value, _: count(value))
        figure_style.light_grid(axes, "y")
        figure.legend(loc="outside upper left", ncols=2, handlelength=1.2)
    return figure


def upset(found: Overlap, labels: Sequence[str]) -> Plot:
    """Draw the most frequent sets of models that miss the same question, named by ``labels``."""
    sets = found.combinations[:UPSET_SETS]
    models = len(labels)
    with figure_style.styled():
        figure = figure_style.blank(1.35 + 0.2 * models)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.2, 0.2 * models])
        for x, (members, number) in enumerate(sets):
            whole = len(members) == models
            ink = figure_style.ORANGE if whole else figure_style.BLUE
            upper.bar(x, number, 0.66, color=ink)
            upper.annotate(
                count(number),
                (x, number),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
            inside = sorted(members)
            lower.plot([x] * models, range(models), "o", color=figure_style.EMPTY, ms=4.6)
            lower.plot([x] * len(inside), inside, "-o", color=ink, ms=4.6, linewidth=1.2)
        lower.set_yticks(range(models), short_names(labels, 30), fontsize=7.6)
        lower.set_ylim(models - 0.5, -0.5)
        lower.set_xlim(-0.7, max(len(sets), 8) - 0.3)
        lower.set_xticks([])
        lower.tick_params(length=0, labelcolor=figure_style.INK)
        upper.tick_params(axis="x", length=0)
        upper.set_ylabel("questions")
        upper.margins(y=0.16)
        for spine in (*lower.spines.values(), upper.spines["bottom"]):
            spine.set_visible(False)
    return figure


def likeness(found: Overlap, labels: Sequence[str]) -> Plot:
    """Below the diagonal φ of the mistakes, above it the share of same wrong answers in percent, both coloured."""
    place = {row: at for at, row in enumerate(found.rows)}
    models = len(found.rows)
    values = np.full((models, models), np.nan)
    cells: dict[tuple[int, int], str] = {}
    for pair in found.pairs:
        a, b = sorted((place[pair.first], place[pair.second]))
        values[b, a], values[a, b] = pair.errors.phi, pair.same.share
        cells[b, a] = decimal(pair.errors.phi)
        cells[a, b] = f"{100 * pair.same.share:.0f}%" if pair.same.n else "–"
    shades = ListedColormap(colormaps[figure_style.HEAT](0.06 + 0.72 * np.linspace(0, 1, SHADES))).with_extremes(
        bad=figure_style.NEUTRAL
    )
    with figure_style.styled():
        figure = figure_style.blank(min(1.5 + 0.32 * models, figure_style.SQUARE_IN))
        axes = figure.subplots()
        known = np.ma.masked_invalid(np.clip(values, 0, 1))
        edge = 0.8 if models <= figure_style.MOST_NAMED else 0.0
        mesh = axes.pcolormesh(known, cmap=shades, vmin=0, vmax=1, edgecolors="white", linewidth=edge)
        if models <= figure_style.MOST_NUMBERED:
            for (y, x), text in cells.items():
                ink = "white" if values[y, x] > 0.72 else figure_style.INK
                axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=7.4, color=ink)
        axes.set_xlim(0, models)
        axes.set_ylim(models, 0)
        name_both(axes, labels)
        _legend(figure, axes, mesh)
    return figure


def _legend(figure: Plot, axes: Axes, mesh: Any) -> None:
    """Explain the colours."""
    bar = figure.colorbar(mesh, ax=axes, location="bottom", shrink=0.5, aspect=38, pad=0.02)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0 or less", "0.25 · 25%", "0.5 · 50%", "0.75 · 75%", "1 · 100%"])
    bar.ax.tick_params(labelsize=7, length=0)
    bar.outline.set_visible(False)
    bar.set_label("φ below the diagonal · same wrong answer above it", fontsize=7.5)


MATRIX_LIMIT = 3
MOST_IN_SETS = 20
"""Sets are drawn for at most this many models. With more, nearly every question is missed by a different set."""
MOST_PAIRS = 40
FEWEST_SHARED = 10
"""With fewer questions that all models miss, the report has no sentence on their wrong answers."""


def _wanted(measures: Measures) -> bool:
    return bool(measures.overlap)


def build(measures: Measures) -> Content:
    """Compare the shared mistakes with the number expected under independence."""
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
        f" Only one run of each model is compared ({plural(left_out, 'run')} with other settings left out), because the"
        " same weights naturally miss the same questions."
        if left_out
        else ""
    )
    who = all_of(models) + " models"
    text = (
        f"{who.capitalize()} miss {count(everyone)} of {plural(total, 'question')} ({percent(everyone / total)});"
        f" {numbers.expected(float(found.expected[-1]))} would be expected if mistakes were independent within each"
        f" subject: {_beyond(found.excess)} ({p_value(found.all_p)}, permutation within subjects)."
        f" {sentence(who)} are right on {count(int(found.missed_by[0]))}, where"
        f" {numbers.expected(float(found.expected[0]))} would be expected.{one_each}"
    )
    caption = (
        "Questions by the number of models that miss them, and the numbers expected if mistakes were independent. More"
        " at both ends and fewer in the middle than expected means that the models find the same questions hard."
    )
    upset_caption = (
        "Sets of models that miss the same questions, most frequent first. The bar above a set is the number of"
        " questions that exactly these models miss. The set of all models is orange."
    )
    blocks: list[Block] = [
        Prose(text),
        Figure(file_name("missed", name, measures), caption, partial(missed_by, found)),
    ]
    if found.combinations and models <= MOST_IN_SETS:
        draw = partial(upset, found, _names(measures, found))
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
        else (
            "the letters, because no probabilities are recorded"
            if source == {"letters"}
            else "probabilities or letters"
        )
    )
    note = (
        "Expected: questions that both would get wrong if mistakes were independent within each subject. p: exact,"
        " one-sided, adjusted by Holm's method for the number of pairs. φ: correlation of the mistakes (0:"
        " independent). κ: error consistency beyond the two accuracies. CAPA: agreement of answers beyond chance, from"
        f" {from_}."
    )
    blocks: list[Block] = [Heading("Pairs of models")]
    if len(found.rows) >= MATRIX_LIMIT:
        caption = (
            "Below the diagonal: φ, the correlation of mistakes. Above: the share of the questions missed by both on"
            " which both give the same wrong answer."
        )
        draw = partial(likeness, found, list(names.values()))
        blocks.append(Figure(file_name("likeness", name, measures), caption, draw))
    order = sorted(range(len(rows)), key=lambda at: -_known(found.pairs[at].errors.phi))
    cut = Cut(MOST_PAIRS, order, "the pairs with the most similar mistakes, by φ", "overlap.csv")
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
        "Both wrong: counts only questions on which both gave a readable answer. Equal chances: expected if every wrong"
        " option were equally likely. Letter habits: expected if each model chose its letters as often as it does but"
        " regardless of the question (shuffled among questions with the same gold letter). p tests against letter"
        " habits."
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
        (f"Best single model on these questions: {best}", found.best_alone),
        ("Majority vote (ties to the more accurate model)", found.majority),
        ("At least one model is right", found.oracle),
    ):
        rows.append([label, percent(value.value), interval(value.low, value.high)])
    independent = 1 - float(found.expected[-1]) / len(found.columns)
    rows.append(["At least one is right, if mistakes were independent within subjects", percent(independent), DASH])
    if found.guessers:
        many = word(len(found.rows))
        rows.append([f"At least one of {many} blind guessers is right", percent(found.guessers), DASH])
    columns = [Column("Answer", "left", 1), Column("Right"), Column("95% interval")]
    note = (
        f"Majority vote minus the best single model: {points(gain.difference, sign=True)} points on the same questions"
        f" (95%: {interval(gain.low, gain.high)}; {p_value(gain.p)}, McNemar's exact test)."
    )
    return [Table("What the models would score together", columns, rows, note=note)]


def _beyond(excess: Interval) -> str:
    """Return ``150 more than that (95% interval of the difference: 128 to 172)``, or ``fewer``."""
    ends = " to ".join(decimal(end, 0 if abs(excess.value) >= 10 else 1) for end in excess[1:])
    if abs(excess.value) < 0.05:
        return f"as many as that (95% interval of the difference: {ends})"
    size = numbers.expected(abs(excess.value))
    return f"{size} {'more' if excess.value >= 0 else 'fewer'} than that (95% interval of the difference: {ends})"


def _findings(measures: Measures, found: Overlap) -> list[Finding]:
    everyone, total, models = int(found.missed_by[-1]), len(found.columns), len(found.rows)
    name = found.benchmark.name
    if int(found.missed_by[0]) == total:
        text = f"On {name}, no model misses any of the {plural(total, 'question')}: there are no mistakes to compare."
        return [Finding("0", text, 90)]
    who = f"{all_of(models)} models"
    expected = numbers.expected(float(found.expected[-1]))
    letters = (
        ""
        if math.isnan(found.letter_expected)
        else f" (within each subject and right letter, {numbers.expected(found.letter_expected)})"
    )
    text = (
        f"On {name}, {who} miss {count(everyone)} of {plural(total, 'question')}. If mistakes were independent within"
        f" each subject, {expected}{letters} would be expected: {_beyond(found.excess)}. {_verdict(found)}"
        f"{_faulty(measures, found)}"
    )
    is_worth_saying = everyone or found.expected[-1] >= 1 or found.all_p < 0.05
    findings = [Finding(count(everyone), text, 90 if is_worth_saying else 35)]
    same = found.same_answer
    if same is not None and same.n >= FEWEST_SHARED:
        between = "they" if models == 2 else "on average, two of them"
        gap = f"{points(same.excess.value, sign=True)} points, 95%: {interval(same.excess.low, same.excess.high)}"
        sure = same.p < 0.05 and same.excess.low > 0
        verdict = "their mistakes lead to the same options"
        if not sure:
            hint = "test and interval disagree, so this is at most a hint"
            verdict = hint if same.p < 0.05 or same.excess.low > 0 else "this is no evidence of shared wrong answers"
        text = (
            f"On the {count(same.n)} questions of {name} that {who} miss, {between} give the same wrong answer"
            f" {percent(same.share, 0)} of the time. Their preferences for letters alone would give"
            f" {percent(same.habit, 0)} ({gap}; {p_value(same.p)}): {verdict}."
        )
        findings.append(Finding(percent(same.share, 0), text, 88 if sure else 60))
    return [*findings, *_together(measures, found)]


def _verdict(found: Overlap) -> str:
    """The results of the tests, over all models together and by pair."""
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
    verb = "shares" if shared == 1 else "share"
    many = f"{count(shared)} of {count(pairs)} pairs of models {verb} more mistakes than independence would give (Holm)"
    if sure:
        return f"The models find {hard}; {many}."
    return f"Over all models, this shows no shared mistakes beyond chance ({p}); {many}."


def _faulty(measures: Measures, found: Overlap) -> str:
    """The same counts without the questions whose label is marked as faulty."""
    kept = measures.without_faulty.get(found.benchmark.name)
    again = measure_overlap(measures.study, kept, pairs=False) if kept is not None else None
    if again is None:
        return ""
    faulty, _ = faulty_columns(measures.study, found.benchmark)
    among = len(set(map(int, faulty)) & set(found.all_missed))
    return (
        f" Of the {count(len(found.all_missed))}, {count(among)} have a label marked as faulty. Without all"
        f" {count(len(faulty))} faulty questions, {count(int(again.missed_by[-1]))} of {count(len(again.columns))} are"
        f" missed, expected {numbers.expected(float(again.expected[-1]))} ({p_value(again.all_p)})."
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
    guess = f"{word(len(found.rows))} blind guessers: {percent(found.guessers, 0)}; " if found.guessers else ""
    text = (
        f"On {found.benchmark.name}, at least one of the {word(len(found.rows))} models is right on"
        f" {percent(found.oracle.value, 0)} of the questions ({guess}these models with independent mistakes:"
        f" {percent(independent, 0)}). Their majority vote gets {percent(found.majority.value)}, {versus}."
    )
    return [Finding(percent(found.oracle.value, 0), text, 50)]


SECTION = Section("overlap", "Do the models miss the same questions?", _wanted, build)
