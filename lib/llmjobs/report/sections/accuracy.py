"""Accuracy: leaderboard with intervals, by benchmark and subject, calibration, and their figures."""

import math
import re
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot
from matplotlib.lines import Line2D

from llmjobs.report import figure_style
from llmjobs.report.blocks import Block, Column, Content, Figure, Finding, Heading, Prose, Section, Table, file_name
from llmjobs.report.figure_style import name_width, short_names
from llmjobs.report.measure import Measures
from llmjobs.report.measure.accuracy import (
    BenchmarkAccuracy,
    ModelAccuracy,
    compare_metrics,
    faulty_columns,
    measure_accuracy,
    subjects_together,
)
from llmjobs.report.measure.overlap import leading_group, representatives
from llmjobs.report.numbers import count, decimal, interval, p_value, percent, points
from llmjobs.report.study import Benchmark
from llmjobs.report.wording import DASH, TOGETHER, all_of, each_other, listed, plural, sentence, word
from llmjobs.statistics.calibration import Calibration

MOST_LINES, CUT_LINES, MOST_COLUMNS, MOST_DOTS = 20, 12, 26, 3
"""Limits: lines of the full and of the cut leaderboard, columns of the heat map, models whose subjects get dots with
intervals.

A longer ranking is cut to fewer lines, because its first page also has long names elsewhere, and the chart keeps its
size.
"""
Named = Sequence[tuple[str, Calibration]]


def leaderboard(found: BenchmarkAccuracy, labels: Sequence[str]) -> Plot:
    """Draw one line per model, best on top: micro accuracy with its interval, macro as a ring, and the chance line.

    ``labels`` are in the order of ``found.models``. Of a long ranking, the first and the last models are drawn.
    """
    lines = figure_style.ends(len(found.models), MOST_LINES if len(found.models) <= MOST_LINES else CUT_LINES, 4)
    count = len(lines)
    with figure_style.styled():
        figure = figure_style.blank(0.75 + (0.24 if len(found.models) <= 12 else 0.19) * count)
        axes = figure.subplots()
        names = []
        short = short_names(labels)
        for y, place in zip(range(count - 1, -1, -1), lines, strict=True):
            if place is None:
                names.append(f"… {len(labels) - count + 1:,} more models …")
                continue
            names.append(short[place])
            _line(axes, y, found.models[place])
        axes.set_yticks(range(count), names[::-1])
        axes.tick_params(axis="y", labelcolor=figure_style.INK)
        axes.set_ylim(-0.7, count - 0.3)
        _span(axes, found, found.benchmark.chance)
        figure_style.percent_axis(axes)
        figure_style.light_grid(axes)
        if None in lines:
            figure_style.say(figure, "The other models are in the accuracy table and in summary.csv.")
    return figure


def _line(axes: Axes, y: float, model: ModelAccuracy) -> None:
    """Draw one model of the leaderboard; markers at the edge of the plot are drawn whole."""
    value, low, high = model.interval
    if not model.n:
        axes.text(0.01, y, "no scored answer", va="center", color=figure_style.MUTED, fontsize=8)
        return
    axes.plot([low, high], [y, y], color=figure_style.BLUE, linewidth=1.4, solid_capstyle="butt")
    axes.plot([value], [y], "o", color=figure_style.BLUE, markersize=4.5, clip_on=False)
    axes.plot([model.macro.value], [y], "o", mfc="none", mec=figure_style.INK, markersize=7, mew=0.7, clip_on=False)
    axes.text(
        1.025,
        y,
        percent(value),
        va="center",
        ha="left",
        fontsize=8.5,
        fontweight="bold",
        transform=axes.get_yaxis_transform(),
    )


def _span(axes: Axes, found: BenchmarkAccuracy, chance: float) -> None:
    """Limits that hold every interval and the chance line, and the chance line itself."""
    scored = [model for model in found.models if model.n]
    ends = [end for model in scored for end in (*model.interval[1:], model.macro.value)] or [0.0, 1.0]
    ends = [end for end in ends if not np.isnan(end)] or [0.0, 1.0]
    low, high = min([*ends, chance or 1.0]), max([*ends, chance])
    margin = max(0.02, 0.06 * (high - low))
    axes.set_xlim(max(0.0, low - margin) if low > 0.15 else -0.01, min(1.01, high + margin))
    if chance:
        axes.axvline(chance, color=figure_style.ORANGE, linewidth=1.1, linestyle=(0, (4, 2)))
        axes.annotate(
            f"chance {percent(chance, 0)}",
            (chance, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            color=figure_style.AMBER,
            fontsize=7.5,
        )


def heat_map(found: BenchmarkAccuracy, labels: Sequence[str], subjects: slice) -> Plot:
    """Accuracy by subject (rows) and model (columns), with the number in every cell.

    A few models get a dot and an interval for every subject instead, many models are cut to the first ones.
    """
    names = [name.replace("_", " ") for name in found.subjects[subjects]]
    if len(found.models) <= MOST_DOTS:
        return _subject_dots(found, labels, subjects, names)
    order = [model.row for model in found.models][:MOST_COLUMNS]
    table = found.by_subject[order][:, subjects].T
    rows, columns = table.shape
    shown = labels[:columns]
    slanted = columns > 4 or max(map(name_width, shown)) * columns > 80
    with figure_style.styled():
        head = 1.5 if slanted else 0.55
        row = min(0.19, (figure_style.ROOM_IN - head) / rows)
        figure = figure_style.blank(row * rows + head)
        axes = figure.subplots()
        masked = np.ma.masked_invalid(table)
        cells = colormaps[figure_style.SEQUENCE]
        axes.pcolormesh(masked, cmap=cells, vmin=0, vmax=1, edgecolors="white", linewidth=0.8)
        for y, x in np.argwhere(~np.isnan(table)):
            value = float(table[y, x])
            ink = "white" if value < 0.55 else figure_style.INK
            size = min(7.2 if columns <= 16 else 6.0, 40 * row)
            axes.text(x + 0.5, y + 0.5, f"{100 * value:.0f}", ha="center", va="center", color=ink, fontsize=size)
        _name_subjects(axes, found, subjects, names, 0.5, row)
        axes.xaxis.tick_top()
        axes.set_xticks(np.arange(columns) + 0.5, short_names(shown, 28), fontsize=7.5)
        if slanted:
            for label in axes.get_xticklabels():
                label.set(rotation=40, ha="left", rotation_mode="anchor")
        axes.tick_params(length=0, labelcolor=figure_style.INK)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if columns < len(labels):
            figure_style.say(figure, figure_style.left_out(columns, len(labels), "summary.csv"))
    return figure


def _name_subjects(
    axes: Axes, found: BenchmarkAccuracy, subjects: slice, names: Sequence[str], offset: float, row_in: float
) -> None:
    sizes = found.subject_sizes[subjects]
    description = [f"{name}  ({size:,})" for name, size in zip(short_names(names, 38), sizes, strict=True)]
    axes.set_yticks(np.arange(len(names)) + offset, description, fontsize=min(7.5, 48 * row_in))
    axes.invert_yaxis()


def _subject_dots(found: BenchmarkAccuracy, labels: Sequence[str], subjects: slice, names: Sequence[str]) -> Plot:
    """A dot with Wilson's 95% interval for every subject, one colour per model."""
    inks = (figure_style.BLUE, figure_style.ORANGE, figure_style.GREEN)
    count = len(found.models)
    with figure_style.styled():
        row = min(0.19 if count < 3 else 0.22, (figure_style.ROOM_IN - 0.55) / len(names))
        figure = figure_style.blank(0.55 + row * len(names))
        axes = figure.subplots()
        for place, model in enumerate(found.models):
            shift = (place - (count - 1) / 2) * 0.26
            for y, subject in enumerate(range(len(found.subjects))[subjects]):
                value, low, high = found.subject_interval(model.row, subject)
                axes.plot([low, high], [y + shift] * 2, color=inks[place], linewidth=1.1, alpha=0.75)
                axes.plot([value], [y + shift], "o", color=inks[place], ms=3.6, clip_on=False)
        _name_subjects(axes, found, subjects, names, 0.0, row)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.tick_params(axis="y", labelcolor=figure_style.INK)
        figure_style.percent_axis(axes)
        figure_style.light_grid(axes)
        if found.benchmark.chance:
            axes.axvline(found.benchmark.chance, color=figure_style.ORANGE, linewidth=1, linestyle=(0, (4, 2)))
            axes.annotate(
                "chance",
                (found.benchmark.chance, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 2),
                textcoords="offset points",
                color=figure_style.AMBER,
                fontsize=7.5,
            )
        if count > 1:
            handles = [Line2D([], [], color=ink, marker="o", ms=3.6) for ink in inks[:count]]
            figure.legend(handles, short_names(labels, 30), loc="outside upper right", ncols=count, handlelength=1.4)
    return figure


def reliability(models: Named) -> Plot:
    """Draw small multiples: how often a model is right against its confidence."""
    total, models = len(models), models[: figure_style.MOST_PANELS]
    columns = min(4, max(len(models), 2))
    rows = -(-len(models) // columns)
    names = short_names([label for label, _ in models], 22)
    with figure_style.styled():
        figure = figure_style.blank(0.35 + 1.55 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(models):
                axes.set_visible(False)
                continue
            found = models[place][1]
            axes.plot([0, 1], [0, 1], color=figure_style.FAINT, linewidth=0.8, linestyle=(0, (3, 2)))
            largest = max(found.bin_count)
            sizes = [6 + 60 * n / largest for n in found.bin_count]
            axes.plot(found.bin_confidence, found.bin_accuracy, color=figure_style.BLUE, linewidth=0.9)
            axes.scatter(
                found.bin_confidence,
                found.bin_accuracy,
                s=sizes,
                color=figure_style.BLUE,
                linewidth=0,
                zorder=3,
                clip_on=False,
            )
            axes.set_title(names[place], fontsize=8)
            axes.text(
                0.97,
                0.05,
                f"ECE {found.ece:.3f}",
                transform=axes.transAxes,
                ha="right",
                fontsize=7.5,
                color=figure_style.MUTED,
            )
            axes.set_xlim(0, 1.02)
            axes.set_ylim(0, 1.02)
            axes.set_xticks([0, 0.5, 1], ["0", "50", "100"])
            axes.set_yticks([0, 0.5, 1], ["0", "50", "100"])
        more = figure_style.left_out(len(models), total, "calibration.csv")
        description = "probability given to the chosen answer, percent" + (f"\n{more}" if more else "")
        figure.supxlabel(description, fontsize=8, color=figure_style.MUTED)
        figure.supylabel("right, percent", fontsize=8, color=figure_style.MUTED)
    return figure


# Calibration, a part of this chapter: is a model right as often as it is confident?


def calibration_blocks(measures: Measures, name: str, found: BenchmarkAccuracy) -> list[Block]:
    """Return plot and table for the models whose option probabilities are recorded."""
    held = {
        p.row: p.calibration for p in measures.patterns[name] if p.calibration is not None and p.calibration.n >= 20
    }
    kinds = listed(sorted({p.scores_kind for p in measures.patterns[name] if p.row in held}))
    order = [model.row for model in found.models if model.row in held]
    if not order:
        return []
    models = [(measures.label(found.benchmark, row), held[row]) for row in order]
    rows = [
        [
            label,
            percent(c.confidence),
            percent(c.accuracy),
            decimal(c.ece, 3),
            decimal(c.brier, 3),
            decimal(c.auroc, 3),
        ]
        for label, c in models
    ]
    columns = [
        Column("Model", "left", 1),
        Column("Mean confidence"),
        Column("Right"),
        Column("ECE"),
        Column("Brier"),
        Column("AUROC"),
    ]
    note = (
        f"Confidence is the probability of the chosen option among the options, from {kinds}. ECE: mean gap between"
        " confidence and accuracy over ten bins (0 is best). Brier: 0 is best, 2 worst. AUROC: chance that"
        " a right answer has higher confidence than a wrong one (50%: confidence carries no information)."
    )
    caption = (
        "Share of right answers against confidence. The area of a point grows with its number of questions; the dashed"
        " line is perfect calibration."
    )
    figure = Figure(file_name("calibration", name, measures), caption, partial(reliability, models))
    return [Heading("Calibration"), figure, Table("Confidence and accuracy", columns, rows, note=note)]


HEAT_ROWS = 58
"""Maximum number of subjects in one figure: all of MMLU."""
MANY = 6
"""Maximum number of names that a sentence lists."""
CLUSTERS_FOR_INTERVAL = 5


def _wanted(measures: Measures) -> bool:
    return bool(measures.study.benchmarks)


def build(measures: Measures) -> Content:
    """The leaderboard, accuracy by subject, and calibration."""
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
    description = f"The chance line is the average score of blind guessing, {percent(chance)}. " if chance else ""
    scored = f", scored by {benchmark.metric}" if benchmark.metric not in ("", "acc") else ""
    intro = Prose(
        f"{plural(benchmark.n, 'question')} of {name} in {plural(len(found.subjects), 'subject')}, the same"
        f" for every model{scored}. {description}Micro accuracy gives every question the same weight, macro"
        " accuracy every"
        " subject. Of 100 intervals at 95%, about 95 contain the true accuracy. Wilson's interval is for"
        " other questions from the same subjects; the clustered one also allows for other subjects."
    )
    rows = [_row(measures, model, len(found.subjects)) for model in found.models]
    columns = [
        Column("Model", "left", 1),
        Column("Right"),
        Column("Questions"),
        Column("Micro"),
        Column("95% interval"),
    ]
    columns += [Column("Clustered"), Column("Macro"), Column("Unparsed"), Column("Errors")]
    table = Table(
        f"Accuracy on {name}",
        columns,
        rows,
        note=(
            "Unparsed: replies without a readable answer; they count as wrong. Errors: questions that could not be"
            " scored; they are not part of any accuracy."
        ),
    )
    return [intro, table]


def _faulty_table(measures: Measures, found: BenchmarkAccuracy) -> list[Block]:
    """Accuracy with all questions and without those whose label is marked as faulty."""
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
        f"The label notes cover {count(reviewed)} of {plural(found.benchmark.n, 'question')} and mark"
        f" {count(len(faulty))} of them as faulty. Questions that were not reviewed are kept."
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
            "with 95% intervals (Wilson) and the number of questions in parentheses"
            if len(names) <= MOST_DOTS
            else "in percent, with the number of questions in parentheses. Dark is low, bright is high"
        )
        caption = f"Accuracy by subject{more} {what}."
        blocks.append(
            Figure(
                file_name("subjects", name, measures, part if parts > 1 else None),
                caption,
                partial(heat_map, found, names, which),
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
        "acc chooses the option with the highest log-likelihood. acc_norm first divides the log-likelihood by the"
        " option's length. Compare models by one of the two, not across them."
    )
    return [Table("The same log-likelihoods scored by acc and acc_norm", columns, rows, note=note)]


def _findings(measures: Measures, found: BenchmarkAccuracy) -> list[Finding]:
    scored = [model for model in found.models if model.n]
    if not scored:
        return []
    return [_first(measures, found, scored), *_sisters(measures, found), *_spread(measures, found),
            *_without_faulty(measures, found), *_changed_prompts(measures, found),
            *_unread(measures, found)]  # fmt: skip


def _named(measures: Measures, benchmark: Benchmark) -> str:
    """A benchmark's name, with the metric if its answers were scored by several."""
    several = len({table.name for table in measures.study.metrics if table.benchmark == benchmark.name}) > 1
    return f"{benchmark.name} ({benchmark.metric})" if several and benchmark.metric else benchmark.name


def _first(measures: Measures, found: BenchmarkAccuracy, scored: Sequence[ModelAccuracy]) -> Finding:
    """Name the most accurate model and those that cannot be told apart from it, with one run per model."""
    benchmark = found.benchmark
    stands = representatives(measures.study, benchmark)
    models = [model for model in scored if stands[model.row] == model.row] or list(scored)
    best = models[0]
    value, low, high = best.interval
    name = measures.study.entries[best.entry].label
    chance = benchmark.chance
    guess = f"; blind guessing would get {percent(chance, 0)} on average" if chance else ""
    what = f"{percent(value)} of {plural(best.n, 'question')} right (95%: {interval(low, high)})"
    level = [model for model in models if model.interval.value == value]
    if len(models) > 1 and len(level) == len(models):
        text = f"On {_named(measures, benchmark)}, {all_of(len(models))} models have {what}{guess}."
    elif len(level) > 1:
        names = listed(measures.study.entries[model.entry].label for model in level)
        text = f"On {_named(measures, benchmark)}, {names} tie for first place with {what}{guess}."
        more = len(set(leading_group(measures.pairs[benchmark.name], best.row)) - {model.row for model in level})
        text += f" {sentence(plural(more, 'other model'))} cannot be told apart from the first of them." if more else ""
    elif len(models) > 1:
        several = len({measures.study.entries[model.entry].info.id for model in models}) < len(models)
        kind = "models and precisions" if several else "models"
        one_each = " (one run of each)" if len(models) < len(scored) else ""
        most = "more than the other model" if len(models) == 2 else f"the most of the {word(len(models))} {kind}"
        text = f"On {_named(measures, benchmark)}, {name} has {what}, {most}{one_each}{guess}."
        text += f" {_leaders(measures, benchmark, best.row, len(models) - 1)}"
    else:
        text = f"On {_named(measures, benchmark)}, {name} has {what}{guess}."
    return Finding(percent(value), text, 100)


def _leaders(measures: Measures, benchmark: Benchmark, best: int, others: int) -> str:
    """Name the models that cannot be told apart from the best one, and those that it is ahead of."""
    group = leading_group(measures.pairs[benchmark.name], best)[1:]
    if not group:
        return f"It is ahead of {each_other(others)}."
    names = listed(measures.label(benchmark, row) for row in group)
    if len(group) == others and others > MANY:
        return f"It cannot be told apart from any of the {word(others)} others."
    ahead = others - len(group)
    rest = f"; it is ahead of the other {word(ahead) if ahead > 1 else 'one'}" if ahead else ""
    return f"It cannot be told apart from {names}{rest}."


SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([bBmM])(?![A-Za-z0-9])")


def _named_size(name: str) -> tuple[str, float] | None:
    """Return the family's name (its first letters) and the number of parameters that a model's name gives."""
    short = name.rstrip("/").rsplit("/", 1)[-1]
    size, family = SIZE.search(short), re.match(r"[A-Za-z]+", short)
    if not size or not family:
        return None
    owner = name.rpartition("/")[0]
    return f"{owner}/{family.group()}".lower(), float(size.group(1)) * (1e9 if size.group(2) in "bB" else 1e6)


def _sisters(measures: Measures, found: BenchmarkAccuracy) -> list[Finding]:
    """Report a model that has fewer right answers than a much smaller one of the same family."""
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
    more = f" The same is true of {plural(len(odd) - 1, 'other pair')}." if len(odd) > 1 else ""
    text = (
        f"On {benchmark.name}, {large} has {points(pair.result.difference)} points fewer right than the smaller {small}"
        f" ({TOGETHER}: {interval(*pair.together)}). Check its prompt and how its replies are parsed before you"
        f" conclude that it is less capable.{more}"
    )
    return [Finding(f"{points(-pair.result.difference, sign=True)} pts", text, 89, alarm=True)]


def _spread(measures: Measures, found: BenchmarkAccuracy) -> list[Finding]:
    """Name the subjects with the lowest and the highest accuracy, if the test finds that subjects differ."""
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
        f" the intervals hold for all {count(len(subjects))} subjects together. The subjects differ"
        f" ({p_value(test.p)}, permutation)."
    )
    return [Finding(percent(low.interval.value, 0), text, 40)]


def _without_faulty(measures: Measures, found: BenchmarkAccuracy) -> list[Finding]:
    """Accuracy without the questions whose label is marked as faulty."""
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
        f"On {benchmark.name}, the label notes mark {count(len(faulty))} of {plural(reviewed, 'reviewed question')}"
        " as faulty."
        f" Without these, {best} has {percent(after.interval.value)} of {count(after.n)} right (95%:"
        f" {interval(after.interval.low, after.interval.high)})"
        + (f" instead of {percent(before.interval.value)}." if same else ", more than any other model.")
    )
    return [Finding(percent(after.interval.value), text, 87)]


def _changed_prompts(measures: Measures, found: BenchmarkAccuracy) -> list[Finding]:
    """Name the models whose prompts differ from the manifest: shots that did not fit, prompts that were cut."""
    name = found.benchmark.name
    changed = {model.entry: measures.study.entries[model.entry].changed.get(name) for model in found.models}
    said = [(measures.study.entries[entry].label, one) for entry, one in changed.items() if one and one.differs]
    if not said:
        return []
    changes = "; ".join(f"{label}: {one}" for label, one in said[:3])
    more = f"; and {plural(len(said) - 3, 'other model')}" if len(said) > 3 else ""
    same = len({str(one) for _, one in said}) == 1 and len(said) == len(changed)
    what = "prompts did not fit into the context" if same else "the models did not get the same prompts"
    return [
        Finding(
            count(sum(max(one.fewer_shots, one.truncated, one.shortened) for _, one in said)),
            f"On {name}, {what} ({changes}{more}).",
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
                f"On {found.benchmark.name}, {name} gave no readable answer to {count(worst.unparsed)} of"
                f" {plural(worst.n, 'question')}. These count as wrong; the cause may be the prompt rather than the"
                " model.",
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
                f" {'is' if total == 1 else 'are'} left out of the accuracies; they do not count as wrong.",
                84,
                alarm=True,
            )
        )
    return findings


SECTION = Section("accuracy", "Accuracy", _wanted, build)
