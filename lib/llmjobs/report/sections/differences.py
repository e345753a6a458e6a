"""Differences: every pair of models on the same questions, and their figures."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure as Plot
from matplotlib.patches import Patch

from llmjobs.report import figure_style
from llmjobs.report.blocks import (
    Block,
    Column,
    Content,
    Cut,
    Figure,
    Finding,
    Heading,
    Prose,
    Section,
    Table,
    file_name,
)
from llmjobs.report.figure_style import name_width, short_names
from llmjobs.report.measure import Measures
from llmjobs.report.measure.cost import time_factor
from llmjobs.report.measure.overlap import MODELS, SETTINGS, Pair
from llmjobs.report.numbers import count, interval, percent, plain_p, points, ratio
from llmjobs.report.study import LOADED_AS, Benchmark, Entry
from llmjobs.report.wording import TOGETHER, listed, plural, sentence, word
from llmjobs.statistics.paired import simultaneous_level, smallest_difference

# Each pair is drawn as a line, or all as a matrix if there are many.


def forest(pairs: Sequence[Pair], labels: Sequence[str]) -> Plot:
    """Each pair's difference with its interval, filled if it is significant after Holm's correction."""
    short = short_names(labels, 24)
    with figure_style.styled():
        figure = figure_style.blank(0.6 + 0.21 * len(pairs))
        axes = figure.subplots()
        for place, pair in enumerate(pairs):
            y = len(pairs) - 1 - place
            result = pair.result
            ink = figure_style.BLUE if pair.distinguishable else figure_style.FAINT
            axes.plot([100 * result.low, 100 * result.high], [y, y], color=ink, linewidth=1.3)
            fill = figure_style.BLUE if pair.distinguishable else "white"
            axes.plot([100 * result.difference], [y], "o", mfc=fill, mec=ink, ms=4.5)
        axes.axvline(0, color=figure_style.INK, linewidth=0.7)
        names = [f"{short[p.first]} – {short[p.second]}" for p in reversed(pairs)]
        axes.set_yticks(range(len(pairs)), names, fontsize=7.6)
        axes.tick_params(axis="y", labelcolor=figure_style.INK)
        axes.set_ylim(-0.7, len(pairs) - 0.3)
        axes.set_xlabel("difference in accuracy, percentage points")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
        figure_style.light_grid(axes)
    return figure


def difference_matrix(pairs: Sequence[Pair], labels: Sequence[str], order: Sequence[int]) -> Plot:
    """Row minus column in points; pale if the pair cannot be told apart after Holm's correction.

    The cells contain the numbers as long as they are readable.
    """
    count = len(order)
    place = {row: at for at, row in enumerate(order)}
    shades = np.ones((count, count, 4))
    with figure_style.styled():
        figure = figure_style.blank(min(1.2 + 0.3 * count, figure_style.SQUARE_IN))
        axes = figure.subplots()
        for pair in pairs:
            for y, x, sign in ((pair.first, pair.second, 1), (pair.second, pair.first, -1)):
                value, strong = sign * pair.result.difference, pair.distinguishable
                shade = (
                    (figure_style.PALE if value > 0 else figure_style.PALE_ORANGE) if strong else figure_style.NEUTRAL
                )
                shades[place[y], place[x]] = to_rgba(shade)
                if count <= figure_style.MOST_NUMBERED:
                    axes.text(
                        place[x] + 0.5,
                        place[y] + 0.5,
                        points(value, sign=True),
                        ha="center",
                        va="center",
                        fontsize=7 if count <= 14 else 5.8,
                        color=figure_style.INK if strong else figure_style.MUTED,
                        fontweight="bold" if strong else "normal",
                    )
        edge = 0.8 if count <= figure_style.MOST_NAMED else 0.0
        axes.pcolormesh(shades, edgecolors="white", linewidth=edge, zorder=0)
        axes.set_xlim(0, count)
        axes.set_ylim(count, 0)
        name_both(axes, [labels[row] for row in order])
        _legend(figure)
    return figure


def _legend(figure: Plot) -> None:
    inks = (figure_style.PALE, figure_style.PALE_ORANGE, figure_style.NEUTRAL)
    captions = ("row is better", "row is worse", "cannot be told apart")
    patches = [Patch(color=ink) for ink in inks]
    figure.legend(patches, captions, loc="outside lower left", ncols=3, handlelength=1.1, handleheight=0.9)


def name_both(axes: Axes, names: Sequence[str]) -> None:
    """Write the same names on both sides of a square, slanted at the top if they would touch.

    If there are very many models, use their places in the ranking instead of names.
    """
    count = len(names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelcolor=figure_style.INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if count > figure_style.MOST_NAMED:
        ranks = [*range(1, count + 1, max(1, round(count / 100) * 10))]
        axes.set_yticks([rank - 0.5 for rank in ranks], list(map(str, ranks)), fontsize=7.5)
        axes.set_xticks([rank - 0.5 for rank in ranks], list(map(str, ranks)), fontsize=7.5)
        axes.set_ylabel("place of the model in the ranking by accuracy")
        return
    size = 7.5 if count <= figure_style.MOST_NUMBERED else 5.8
    slanted = count > 4 or max(map(name_width, names)) * count > 90
    axes.set_yticks(np.arange(count) + 0.5, short_names(names, 28), fontsize=size)
    axes.set_xticks(np.arange(count) + 0.5, short_names(names, 24), fontsize=size)
    if slanted:
        for label in axes.get_xticklabels():
            label.set(rotation=40 if count <= figure_style.MOST_NUMBERED else 60, ha="left", rotation_mode="anchor")


FOREST_LIMIT = 15
MOST_MODELS = 9
"""Maximum number of models whose pairs are all printed; of more models, the best ones are."""


def _wanted(measures: Measures) -> bool:
    return any(measures.pairs.values())


def build(measures: Measures) -> Content:
    """Which models differ, by how much, and with what certainty."""
    blocks: list[Block] = [
        Prose(
            "Models are compared question by question. Questions that both get right or both get wrong do not show"
            " which model is better. p is from McNemar's exact test, adjusted by Holm's method for the number of pairs."
            " The interval of a difference is Bonett and Price's. The intervals of all pairs hold together at 95%"
            " (Bonferroni); pairs.csv also has the interval of each pair alone. Two models can be told apart if the"
            " adjusted p is below 5% and the interval excludes 0. These methods treat questions as independent and"
            " generalize to other questions from the same subjects. For other subjects, pairs.csv has the interval"
            " clustered by subject."
        )
    ]
    findings: list[Finding] = []
    for benchmark in measures.study.benchmarks:
        pairs = [pair for pair in measures.pairs[benchmark.name] if pair.family == MODELS]
        again = [pair for pair in measures.pairs[benchmark.name] if pair.family == SETTINGS]
        if len(measures.study.benchmarks) > 1 and (pairs or again):
            blocks.append(Heading(benchmark.name))
        if pairs:
            blocks += _pairs(measures, benchmark, pairs)
            findings += _findings(measures, benchmark, pairs)
        if again:
            blocks.append(_settings_table(measures, benchmark, again))
        findings += _settings(measures, benchmark, [*pairs, *again])
    blocks += _repeats(measures)
    return Content(blocks, findings)


def _pairs(measures: Measures, benchmark: Benchmark, pairs: list[Pair]) -> list[Block]:
    order = [model.row for model in measures.accuracy[benchmark.name].models]
    ranked = sorted(pairs, key=lambda p: (order.index(p.first), order.index(p.second)))
    apart = sum(pair.distinguishable for pair in pairs)
    result = (
        f"{sentence(word(apart)) if apart else 'None'} of the {count(len(pairs))} pairs can be told apart at the 5%"
        " level after the correction."
        if len(pairs) > 1
        else f"The pair {'can' if apart else 'cannot'} be told apart at the 5% level."
    )
    figure = _figure(measures, benchmark, pairs, ranked)
    columns, rows = _rows(measures, benchmark, ranked)
    strong = frozenset(place for place, pair in enumerate(ranked) if pair.distinguishable)
    note = (
        "Only first, only second: questions that only this model gets right. Answers differ: share of questions on"
        " which the two give different answers, right or wrong. Bold: the two can be told apart."
    )
    top = [row for row in order if any(row in (pair.first, pair.second) for pair in pairs)][:MOST_MODELS]
    among = [at for at, pair in enumerate(ranked) if pair.first in top and pair.second in top]
    chosen = f"the pairs of the {word(len(top))} most accurate models"
    cut = Cut(len(among), among, chosen, "pairs.csv") if len(among) < len(pairs) else Cut(all_in="pairs.csv")
    return [
        Prose(f"{result} {_power(pairs)}"),
        figure,
        Table("Every pair on the same questions", columns, rows, strong, note, cut),
    ]


def _power(pairs: Sequence[Pair]) -> str:
    """Say how large a difference must be to be detected with this many questions."""
    typical = sorted(pairs, key=lambda p: p.result.only_first + p.result.only_second)[len(pairs) // 2].result
    if not typical.only_first + typical.only_second:
        return ""
    share = (typical.only_first + typical.only_second) / typical.n
    alone = smallest_difference(typical.n, share)
    text = (
        f"What {plural(typical.n, 'question')} can show: in the median pair, only one of the two models is right on"
        f" {percent(share, 0)} of the questions. With this share, a single comparison detects a true difference of"
        f" {points(alone)} points with 80% power"
    )
    if len(pairs) > 1:
        together = smallest_difference(typical.n, share, level=simultaneous_level(len(pairs)))
        text += f"; among {count(len(pairs))} comparisons, the difference must be {points(together)} points"
    return f"{text}. Smaller differences are likely to be missed."


def _rows(measures: Measures, benchmark: Benchmark, pairs: Sequence[Pair]) -> tuple[list[Column], list[Sequence[str]]]:
    names = [measures.label(benchmark, row) for row in range(len(benchmark.rows))]
    columns = [
        Column("First", "left", 1),
        Column("Second", "left", 1),
        Column("Points"),
        Column("95% together" if len(pairs) > 1 else "95% interval"),
        Column("Only first"),
        Column("Only second"),
        Column("p (Holm)" if len(pairs) > 1 else "p"),
        Column("Answers differ"),
    ]
    rows = [
        [
            names[p.first],
            names[p.second],
            points(p.result.difference, sign=True),
            interval(*p.together),
            count(p.result.only_first),
            count(p.result.only_second),
            plain_p(p.p_holm),
            percent(p.changed / p.result.n),
        ]
        for p in pairs
    ]
    return columns, list(rows)


def _settings_table(measures: Measures, benchmark: Benchmark, pairs: Sequence[Pair]) -> Table:
    columns, rows = _rows(measures, benchmark, pairs)
    entries = measures.study.entries
    shown = [
        [
            *row,
            listed(_recorded(entries[benchmark.rows[p.first]], entries[benchmark.rows[p.second]]))
            or "nothing recorded",
        ]
        for row, p in zip(rows, pairs, strict=True)
    ]
    strong = frozenset(place for place, pair in enumerate(pairs) if pair.distinguishable)
    note = (
        "These runs do not count as separate models: they are not among the pairs above or in the correction for them."
        " Bold: the two can be told apart."
    )
    if not benchmark.protocol:
        note += " Prompts and the parsing of replies are not recorded and may differ too."
    return Table("Further runs of the same model", [*columns, Column("Differs in", "left", 1)], shown, strong, note)


def _figure(measures: Measures, benchmark: Benchmark, pairs: list[Pair], ranked: list[Pair]) -> Figure:
    """Return a forest plot with one line per pair, or a matrix if there are many pairs."""
    names = [measures.label(benchmark, row) for row in range(len(benchmark.rows))]
    name = file_name("differences", benchmark.name, measures)
    held = {row for pair in pairs for row in (pair.first, pair.second)}
    if len(pairs) <= FOREST_LIMIT:
        caption = (
            "Difference in accuracy, first minus second, with intervals that hold for all pairs together at 95%."
            " Filled: the two can be told apart."
        )
        return Figure(name, caption, partial(forest, ranked, names))
    order = [model.row for model in measures.accuracy[benchmark.name].models if model.row in held]
    caption = (
        "Row minus column, in percentage points. Bold and coloured: can be told apart. Grey: cannot be told apart."
    )
    return Figure(name, caption, partial(difference_matrix, pairs, names, order))


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
    note = (
        "A second run with the same model and settings does not count as a second model. It is compared with the first."
    )
    return [
        Heading("Repeated runs"),
        Table("Do repeated runs give the same answers?", columns, rows, note=note),
    ]


def _findings(measures: Measures, benchmark: Benchmark, pairs: list[Pair]) -> list[Finding]:
    held = {row for pair in pairs for row in (pair.first, pair.second)}
    order = [model.row for model in measures.accuracy[benchmark.name].models if model.n and model.row in held]
    if len(order) < 2 or not any(pair.changed or pair.result.difference for pair in pairs):
        return []
    best, second = order[:2]
    pair = next(p for p in pairs if {p.first, p.second} == {best, second})
    findings = [_best(measures, benchmark, pair, len(pairs))]
    alike = [p for p in pairs if not p.distinguishable]
    if alike and len(order) > 2:
        names = (f"{measures.label(benchmark, p.first)} and {measures.label(benchmark, p.second)}" for p in alike)
        which = f": {'; '.join(names)}" if len(alike) <= 3 else ""
        of_all = f"of the {word(len(pairs))} pairs of models"
        who = f"{word(len(alike))} {of_all} cannot be told apart{which}"
        if len(alike) == len(pairs):
            who = f"none {of_all} can be told apart"
        text = (
            f"On {benchmark.name}, {who} (McNemar's exact test, Holm over the pairs). They may be equally good, or"
            f" differ by too little for {plural(benchmark.n, 'question')} to show."
        )
        findings.append(Finding(f"{count(len(alike))} of {count(len(pairs))}", text, 62))
    return findings


def _best(measures: Measures, benchmark: Benchmark, pair: Pair, pairs: int) -> Finding:
    first, second = measures.label(benchmark, pair.first), measures.label(benchmark, pair.second)
    result = pair.result
    within = f"({TOGETHER if pairs > 1 else '95%'}: {interval(*pair.together)})"
    took = _time_ratio(measures, benchmark, pair)
    asked = plural(result.n, "question")
    if pair.distinguishable:
        text = (
            f"On {benchmark.name}, {first} has {points(result.difference)} points more right than"
            f" {second}{', which ranks next,' if pairs > 1 else ''} on the same {asked} {within}{took}."
        )
    else:
        text = (
            f"On {benchmark.name}, the best two, {first} and {second}, cannot be told apart on the same {asked}:"
            f" {points(result.difference, sign=True)} points {within}{took}."
        )
    return Finding(f"{points(result.difference, sign=True)} pts", text, 95)


def _time_ratio(measures: Measures, benchmark: Benchmark, pair: Pair) -> str:
    """Return "; it takes 3.1 times as long" if both ran on the same machine and the gap exceeds the noise."""
    a, b = (measures.study.entries[benchmark.rows[row]] for row in (pair.first, pair.second))
    factor = time_factor(a, b)
    if factor is None or not a.cost or a.cost.questions != benchmark.n:
        return ""  # the time is that of the whole run, which has more than this benchmark or its selected part
    if factor >= 1:
        return f"; it took {ratio(factor)} times as long, including loading (one run each)"
    return f"; it was {ratio(1 / factor)} times as fast, including loading (one run each)"


def what_differs(a: Entry, b: Entry, benchmark: Benchmark) -> str:
    """Return the recorded settings in which two runs of one model differ; mentions an unrecorded prompt."""
    known = _recorded(a, b)
    if not benchmark.protocol:
        prompt = "the prompt and the parsing of replies, which are not recorded"
        known.append(f"perhaps {prompt}" if known else f"no recorded setting, but perhaps {prompt}")
    return listed(known) or "no recorded setting"


def _recorded(a: Entry, b: Entry) -> list[str]:
    fields = [
        ("study", a.info.study, b.info.study),
        ("device", a.info.device, b.info.device),
        ("quantization", a.info.quantization or "none", b.info.quantization or "none"),
        ("dtype", a.info.dtype, b.info.dtype),
        ("revision", a.info.revision, b.info.revision),
        *zip(("thinking", "date in the prompts"), a.info.prompts, b.info.prompts, strict=True),
        *((LOADED_AS[name], a.info.detail(name), b.info.detail(name)) for name in _comparable(a, b)),
        ("machine", str(a.machine.get("cpu") or ""), str(b.machine.get("cpu") or "")),
    ]
    return [f"{name} ({x or 'not recorded'}, {y or 'not recorded'})" for name, x, y in fields if x != y]


def _comparable(a: Entry, b: Entry) -> Sequence[str]:
    """The details that both engines have: another engine has other settings."""
    return list(LOADED_AS) if a.info.engine == b.info.engine else ["engine"]


def _settings(measures: Measures, benchmark: Benchmark, pairs: Sequence[Pair]) -> list[Finding]:
    """What a setting changes, model by model: precision, device, machine, study."""
    findings = []
    entries = measures.study.entries
    for pair in pairs:
        a, b = (entries[benchmark.rows[row]] for row in (pair.first, pair.second))
        if a.info.id != b.info.id:
            continue
        result = pair.result
        family = sum(other.family == pair.family for other in pairs)
        within = f"({TOGETHER if family > 1 else '95%'}: {interval(*pair.together)})"
        gap = (
            f"{a.label} has {points(result.difference)} points more right {within}"
            if pair.distinguishable
            else f"they cannot be told apart, {points(result.difference, sign=True)} points {within}"
        )
        text = (
            f"On {benchmark.name}, {a.label} and {b.label} are runs of one model that differ in"
            f" {what_differs(a, b, benchmark)}: {gap}; {count(pair.changed)} of {count(result.n)} answers differ."
        )
        weight = 75 if (a.info.quantization or "none") != (b.info.quantization or "none") else 58
        findings.append((not pair.distinguishable, -abs(result.difference), text, weight, points(result.difference)))
    if not findings:
        return []
    findings.sort()
    _, _, text, weight, gap = findings[0]
    rest = len(findings) - 1
    more = f" {sentence(word(rest))} more {'comparison is' if rest == 1 else 'comparisons are'} under Differences."
    return [Finding(f"{gap} pts", text + (more if rest else ""), weight)]


SECTION = Section("differences", "Differences between models", _wanted, build)
