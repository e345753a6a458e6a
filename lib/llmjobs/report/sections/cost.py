"""Cost: time, memory and energy of every model, accuracy against them, and their figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot

from llmjobs.report import figure_style
from llmjobs.report.blocks import Block, Column, Content, Figure, Finding, Heading, Prose, Section, Table
from llmjobs.report.figure_style import place_labels, short_names
from llmjobs.report.measure import Measures
from llmjobs.report.measure.accuracy import ModelAccuracy
from llmjobs.report.measure.cost import recommend, spent, time_factor
from llmjobs.report.measure.overlap import leading_group
from llmjobs.report.numbers import count, decimal, interval, percent, points, ratio, seconds, size
from llmjobs.report.study import Cost, Entry
from llmjobs.report.wording import DASH, TOGETHER, all_of, listed, plural
from llmjobs.report.write.notes import MACHINES, TIMINGS

MOST_NAMES = 24
"""Maximum number of points with a name."""


@dataclass(frozen=True)
class CostPoint:
    """A model's cost and accuracy."""

    label: str
    cost: float
    accuracy: float
    low: float
    high: float


def pareto(points: Sequence[CostPoint]) -> list[CostPoint]:
    """Return the points that no other point beats in both cost and accuracy, cheapest first."""
    front: list[CostPoint] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


@dataclass(frozen=True)
class Unit:
    """A unit for an axis: its name and how much of the base unit it is."""

    name: str
    factor: float


SECONDS = (Unit("s", 1), Unit("min", 60), Unit("h", 3600))
BYTES = (Unit("B", 1), Unit("KiB", 2**10), Unit("MiB", 2**20), Unit("GiB", 2**30))


def fitting_unit(largest: float, units: Sequence[Unit]) -> Unit:
    """Return the largest unit in which ``largest`` is at least 2."""
    return next((unit for unit in reversed(units) if largest >= 2 * unit.factor), units[0])


def tradeoff(points: Sequence[CostPoint], axis: str, units: Sequence[Unit], chance: float) -> Plot:
    """Accuracy against a cost. Models on the Pareto front are filled and joined by steps."""
    unit = fitting_unit(max(p.cost for p in points), units)
    at = [(p.cost / unit.factor, p) for p in points]
    front = pareto(points)
    with figure_style.styled():
        figure = figure_style.blank(3.0)
        axes = figure.subplots()
        for x, p in at:
            axes.plot([x, x], [p.low, p.high], color=figure_style.PALE, linewidth=1.2, zorder=1)
            on = p in front
            axes.plot(
                [x],
                [p.accuracy],
                "o",
                mfc=figure_style.BLUE if on else "white",
                mec=figure_style.BLUE,
                ms=5.2,
                zorder=3,
            )
        steps = [p.cost / unit.factor for p in front]
        axes.step(steps, [p.accuracy for p in front], where="post", color=figure_style.BLUE, linewidth=0.8)
        if chance:
            _chance_line(axes, chance)
        if max(x for x, _ in at) > 20 * min(x for x, _ in at):
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter("")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.margins(x=0.16, y=0.14)
        if axes.get_xscale() == "linear":
            axes.set_xlim(left=0)
        axes.set_xlabel(f"{axis}, {unit.name}")
        axes.set_ylabel("accuracy")
        figure_style.percent_axis(axes, "y")
        axes.grid(axis="y")
        named = [
            (x, p.accuracy, name)
            for (x, p), name in zip(at, short_names([p.label for p in points], 26), strict=True)
            if len(points) <= MOST_NAMES or p in front
        ]
        place_labels(axes, named[:MOST_NAMES])
        if len(points) > MOST_NAMES:
            figure_style.say(figure, "Only the models on the front are named.")
    return figure


def _chance_line(axes: Axes, chance: float) -> None:
    axes.axhline(chance, color=figure_style.ORANGE, linewidth=1, linestyle=(0, (4, 2)))
    axes.annotate(
        "chance",
        (1.0, chance),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        color=figure_style.AMBER,
        fontsize=7.5,
    )


def cost_bars(labels: Sequence[str], parts: Mapping[str, Sequence[float | None]], units: Sequence[Unit]) -> Plot:
    """Draw bars side by side for each model, one shade per kind of time or memory; missing values are labelled."""
    each = 0.14 + 0.13 * len(parts)
    most = int((figure_style.ROOM_IN - 0.95) / (0.75 * each))
    total, labels = len(labels), labels[:most]
    parts = {name: values[:most] for name, values in parts.items()}
    inks = [figure_style.INK, figure_style.BLUE, figure_style.ORANGE, figure_style.GREEN][: len(parts)]
    wide = 0.8 / len(parts)
    largest = max((v for values in parts.values() for v in values if v is not None), default=1.0)
    with figure_style.styled():
        unit = fitting_unit(largest, units)
        figure = figure_style.blank(0.85 + len(labels) * each * (1.0 if len(labels) <= 7 else 0.75))
        axes = figure.subplots()
        for series, (name, values) in enumerate(parts.items()):
            for row, value in enumerate(values):
                y = len(labels) - 1 - row + 0.4 - wide * (series + 0.5)
                text = "not measured" if value is None else seconds(value) if units is SECONDS else size(value)
                x = (value or 0.0) / unit.factor
                axes.barh(y, x, wide * 0.86, color=inks[series], label=name if row == 0 else None)
                axes.annotate(
                    text,
                    (x, y),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7,
                    color=figure_style.MUTED,
                )
        axes.set_yticks(range(len(labels)), short_names(labels)[::-1])
        axes.tick_params(axis="y", labelcolor=figure_style.INK)
        axes.set_ylim(-0.55, len(labels) - 0.45)
        axes.set_xlim(0, largest / unit.factor * 1.18)
        more = "" if len(labels) == total else f"The first {len(labels)} of {total:,}."
        axes.set_xlabel(f"{unit.name}\n{more}" if more else unit.name)
        figure_style.light_grid(axes)
        figure.legend(loc="outside upper left", ncols=len(parts), handlelength=1.0)
    return figure


UNITS = {"memory": size, "time": seconds, "cpu": seconds, "gpu": seconds}
NAMES = {"memory": "memory", "time": "real time", "cpu": "CPU time", "gpu": "GPU time", "energy": "energy"}


def _wanted(measures: Measures) -> bool:
    return any(entry.cost for entry in measures.study.entries) or bool(measures.study.budget)


def build(measures: Measures) -> Content:
    """Time, memory and energy of every model, and accuracy against them."""
    entries = [entry for entry in measures.study.entries if entry.cost]
    blocks: list[Block] = []
    if entries:
        blocks += [_explained(entries), _table(entries), *_bars(entries), *_tradeoffs(measures)]
        blocks += _machines(entries)
    return Content(blocks, [*_recommendation(measures), *_findings(measures, entries)], _notes(entries))


def _explained(entries: Sequence[Entry]) -> Prose:
    text = (
        "Real time is wall-clock time, including loading, summed over all attempts. CPU time is user and system time"
        " summed over all threads; it exceeds real time if several threads work at once. GPU time comes from the"
        " device's events. On devices without such events it is not measured; that does not mean zero."
    )
    reasons = sorted({e.cost.gpu_s_reason for e in entries if e.cost and e.cost.gpu_s is None and e.cost.gpu_s_reason})
    return Prose(text + (f" GPU time is missing here: {'; '.join(reasons)}." if reasons else ""))


def _table(entries: Sequence[Entry]) -> Table:
    columns = [
        Column("Model", "left", 1),
        Column("Real"),
        Column("CPU"),
        Column("GPU"),
        Column("Load"),
        Column("Questions/s"),
        Column("Memory"),
        Column("Resident"),
        Column("Device memory"),
        Column("Attempts"),
    ]
    energy = any(e.cost and e.cost.energy_j is not None for e in entries)
    if energy:
        columns.append(Column("kJ / 1,000 questions"))
    rows = []
    for entry in entries:
        cost = entry.cost or Cost()
        row = [
            entry.label,
            seconds(cost.real_s),
            seconds(cost.cpu_s),
            seconds(cost.gpu_s),
            seconds(cost.load_s),
            rate(cost),
            size(cost.needed_bytes),
            size(cost.peak_rss_bytes),
            size(cost.peak_device_bytes),
            count(cost.attempts),
        ]
        if energy:
            per = cost.energy_j / cost.questions if cost.energy_j is not None and cost.questions else None
            row.append(decimal(per))
        rows.append(row)
    note = (
        "Real: loading, planning, scoring and saving, over all attempts. Questions/s: during scoring, same as on the"
        " terminal. Memory: peak memory that the system cannot reclaim. Resident: peak including file pages,"
        " which it can reclaim. A dash: not measured."
    )
    return Table("Time and memory of each model", columns, rows, note=note)


def rate(cost: Cost) -> str:
    """Questions per second during scoring: see :attr:`Cost.questions_per_s`."""
    return decimal(cost.questions_per_s, 1)


def _bars(entries: Sequence[Entry]) -> list[Block]:
    labels = [entry.label for entry in entries]
    costs = [entry.cost or Cost() for entry in entries]
    times = {"real": [c.real_s for c in costs], "CPU": [c.cpu_s for c in costs]}
    if any(c.gpu_s is not None for c in costs):
        times["GPU"] = [c.gpu_s for c in costs]
    blocks: list[Block] = []
    if any(value is not None for value in times["real"]):
        caption = "Real, CPU and GPU time of each model over the whole run."
        blocks.append(Figure("times", caption, partial(cost_bars, labels, times, SECONDS)))
    return blocks


def _tradeoffs(measures: Measures) -> list[Block]:
    main = measures.study.main
    if main is None:
        return []
    blocks: list[Block] = []
    for kind, axis, name in (
        ("time", "real time", "accuracy-time"),
        ("memory", "peak memory", "accuracy-memory"),
    ):
        points_ = _points(measures, main.name, kind)
        if len(points_) < 2:
            continue
        whole = f" of the whole run ({_all_benchmarks(measures)})" if len(measures.study.benchmarks) > 1 else ""
        units = SECONDS if kind == "time" else BYTES
        front = listed(p.label for p in pareto(points_))
        caption = (
            f"Accuracy on {main.name} against {axis}{whole}, with 95% intervals. On the Pareto front (no other"
            f" model is both more accurate and lower in measured {axis}): {front}."
        )
        blocks.append(Figure(name, caption, partial(tradeoff, points_, axis, units, main.chance)))
    return blocks


def _points(measures: Measures, benchmark: str, kind: str) -> list[CostPoint]:
    found = []
    for model in measures.accuracy[benchmark].models:
        entry = measures.study.entries[model.entry]
        used = spent(entry.cost, kind)
        if used and model.n:
            found.append(CostPoint(entry.label, used, *model.interval))
    return found


def _machine_rows(entries: Sequence[Entry]) -> list[list[str]]:
    """One row per machine for each model that was run on several, such as a laptop and Colab."""
    by_model: dict[str, list[Entry]] = {}
    for entry in entries:
        by_model.setdefault(entry.info.id, []).append(entry)
    rows = []
    for same in by_model.values():
        if len({str(dict(entry.machine)) for entry in same}) < 2:
            continue
        slowest = max((e.cost.real_s or 0.0) for e in same if e.cost)
        for entry in same:
            cost = entry.cost or Cost()
            speed = f"{ratio(slowest / cost.real_s)}×" if cost.real_s else DASH
            rows.append(
                [
                    entry.label,
                    str(entry.machine.get("cpu", DASH)),
                    entry.info.device or DASH,
                    seconds(cost.real_s),
                    speed,
                ]
            )
    return rows


def _machines(entries: Sequence[Entry]) -> list[Block]:
    rows = _machine_rows(entries)
    columns = [
        Column("Model", "left", 1),
        Column("Machine", "left", 1),
        Column("Device", "left"),
        Column("Real"),
        Column("Speed"),
    ]
    note = "Speed: relative to the slowest run of the same model."
    table = Table("Comparison of machines", columns, rows, note=note)
    return [Heading("The same model on several machines"), table] if rows else []


def _notes(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Sentences on the times, and on the differences between machines."""
    notes = []
    for entry in entries:
        cost = entry.cost or Cost()
        gpu = f"{seconds(cost.gpu_s)} GPU" if cost.gpu_s is not None else "GPU time not measured"
        times = f"{entry.label}: {seconds(cost.real_s)} real, {seconds(cost.cpu_s)} CPU, {gpu}"
        notes.append((TIMINGS, f"{times}; peak memory {size(cost.memory_bytes)}, {rate(cost)} questions per second."))
    for row in _machine_rows(entries):
        notes.append(
            (
                MACHINES,
                f"{row[0]} on {row[1]} ({row[2]}): {row[3]}, {row[4]} the speed of the slowest machine (one run each).",
            )
        )
    return notes


def _recommendation(measures: Measures) -> list[Finding]:
    study, main = measures.study, measures.study.main
    if not study.budget or main is None:
        return []
    found = recommend(measures.accuracy[main.name], study.entries, study.budget)
    limits = " and ".join(f"{_amount(name, value)} of {NAMES[name]}" for name, value in study.budget.items())
    unknown = (
        f" Not considered, because not measured: {listed(study.entries[m.entry].label for m in found.unmeasured)}."
        if found.unmeasured
        else ""
    )
    if found.best is None:
        return [Finding("none", f"No model stays within {limits}.{unknown}", 120, alarm=True)]
    entry = study.entries[found.best.entry]
    took = " and ".join(f"{_amount(name, spent(entry.cost, name) or 0)} of {NAMES[name]}" for name in study.budget)
    whole = f" for {_all_benchmarks(measures)}" if len(study.benchmarks) > 1 else ""
    text = (
        f"Within {limits}, run {entry.label}: {percent(found.best.interval.value)} right on {main.name} (95%:"
        f" {interval(found.best.interval.low, found.best.interval.high)}), using {took}{whole}."
    )
    text += _alike(measures, found.best, found.within) + _lost(measures, found.best, found.over) + unknown
    return [Finding("→", text, 120)]


def _all_benchmarks(measures: Measures) -> str:
    return f"{all_of(len(measures.study.benchmarks))} benchmarks together"


def _alike(measures: Measures, best: ModelAccuracy, within: Sequence[ModelAccuracy]) -> str:
    """Name the models within the budget that cannot be told apart from the best."""
    main = measures.study.main
    group = leading_group(measures.pairs[main.name], best.row)[1:] if main else []
    names = [measures.study.entries[model.entry].label for model in within if model.row in group]
    return f" {listed(names)} cannot be told apart from it." if names else ""


def _amount(name: str, value: float) -> str:
    return UNITS[name](value) if name in UNITS else f"{value:,.0f} J"


def _lost(measures: Measures, best: ModelAccuracy, over: Sequence[ModelAccuracy]) -> str:
    better = [m for m in over if m.n and m.interval.value > best.interval.value]
    if not better:
        return " No model over the budget is more accurate."
    top, main = better[0], measures.study.main
    label = measures.study.entries[top.entry].label
    pairs = measures.pairs[main.name] if main else []
    pair = next((p for p in pairs if {p.first, p.second} == {top.row, best.row}), None)
    if pair is None:
        return f" {label}, over the budget, has {percent(top.interval.value)} right."
    ends = interval(*pair.together)
    if not pair.distinguishable:
        return f" {label}, over the budget, has {percent(top.interval.value)} right, but cannot be told apart from it."
    return f" {label}, over the budget, has {points(pair.result.difference)} points more ({TOGETHER}: {ends})."


def _findings(measures: Measures, entries: Sequence[Entry]) -> list[Finding]:
    """Name the slowest and the fastest model, if single runs are enough to show that they differ."""
    timed = sorted((e for e in entries if e.cost and e.cost.real_s), key=lambda e: (e.cost and e.cost.real_s) or 0.0)
    factor = time_factor(timed[-1], timed[0]) if len(timed) > 1 else None
    if factor is None or len({e.info.id for e in timed}) < 2:
        return []
    quick, late = timed[0], timed[-1]
    fast, slow = (seconds(e.cost.real_s if e.cost else None) for e in (quick, late))
    study = measures.study
    asked = quick.cost.questions if quick.cost else 0
    shown = sum(b.n for b in study.benchmarks) + sum(table.values.shape[1] for table in study.graded)
    names = listed([*(b.name for b in study.benchmarks), *(table.benchmark for table in study.graded)], limit=3)
    of = names if asked == shown else "the whole run, which has more than this report covers"
    text = (
        f"{late.label} took {ratio(factor)} times as long as {quick.label} for the same"
        f" {plural(asked, 'question')} of {of}: {slow} against {fast},"
        " including loading, one run each."
    )
    return [Finding(f"{ratio(factor)}×", text, 65)]


SECTION = Section("cost", "What it costs", _wanted, build)
