"""Cost: times, memory and energy of every model, and accuracy against them."""

from collections.abc import Sequence
from functools import partial

from llmjobs.report.blocks import Block, Column, Content, Figure, Finding, Heading, Prose, Table
from llmjobs.report.figures import cost as plots
from llmjobs.report.measure import Measures
from llmjobs.report.measure.accuracy import ModelAccuracy
from llmjobs.report.measure.cost import recommend, spent
from llmjobs.report.sections.base import Section
from llmjobs.report.study import Cost, Entry
from llmjobs.report.wording import (
    DASH,
    count,
    decimal,
    interval,
    listed,
    percent,
    points,
    ratio,
    seconds,
    size,
)
from llmjobs.report.write.notes import MACHINES, TIMINGS

UNITS = {"memory": size, "time": seconds, "cpu": seconds, "gpu": seconds}
NAMES = {"memory": "memory", "time": "real time", "cpu": "CPU time", "gpu": "GPU time", "energy": "energy"}


def _wanted(measures: Measures) -> bool:
    return any(entry.cost for entry in measures.study.entries) or bool(measures.study.budget)


def build(measures: Measures) -> Content:
    """Say what every model costs, and what one gets for it."""
    entries = [entry for entry in measures.study.entries if entry.cost]
    blocks: list[Block] = []
    if entries:
        blocks += [_explained(entries), _table(entries), *_bars(entries), *_tradeoffs(measures)]
        blocks += _machines(entries)
    return Content(blocks, [*_recommendation(measures), *_findings(entries)], _notes(entries))


def _explained(entries: Sequence[Entry]) -> Prose:
    text = (
        "Real time is what a clock on the wall shows, loading included, over all attempts. CPU time is user"
        " and system time of all threads together, and exceeds real time where several work at once. GPU"
        " time comes from the device's own events; where a device has none it is not measured, which is not"
        " the same as zero."
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
        Column("Peak memory"),
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
            size(cost.peak_rss_bytes),
            size(cost.peak_device_bytes),
            count(cost.attempts),
        ]
        if energy:
            per = cost.energy_j / cost.questions if cost.energy_j is not None and cost.questions else None
            row.append(decimal(per))
        rows.append(row)
    note = "Peak memory: resident, of the whole process. A dash: not measured."
    return Table("What each model took", columns, rows, note=note)


def rate(cost: Cost) -> str:
    """Questions a second, loading left out."""
    working = (cost.real_s or 0.0) - (cost.load_s or 0.0)
    return decimal(cost.questions / working, 1) if working > 0 and cost.questions else DASH


def _bars(entries: Sequence[Entry]) -> list[Block]:
    labels = [entry.label for entry in entries]
    costs = [entry.cost or Cost() for entry in entries]
    times = {"real": [c.real_s for c in costs], "CPU": [c.cpu_s for c in costs]}
    if any(c.gpu_s is not None for c in costs):
        times["GPU"] = [c.gpu_s for c in costs]
    blocks: list[Block] = []
    if any(value is not None for value in times["real"]):
        caption = "Real, CPU and GPU time of each model over the whole run."
        blocks.append(Figure("times", caption, partial(plots.cost_bars, labels, times, plots.SECONDS)))
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
        units = plots.SECONDS if kind == "time" else plots.BYTES
        front = listed(p.label for p in plots.pareto(points_))
        caption = (
            f"Accuracy on {main.name} against {axis}, with 95% intervals. On the front, that is beaten by"
            f" no other in both at once: {front}."
        )
        blocks.append(Figure(name, caption, partial(plots.tradeoff, points_, axis, units, main.chance)))
    return blocks


def _points(measures: Measures, benchmark: str, kind: str) -> list[plots.CostPoint]:
    found = []
    for model in measures.accuracy[benchmark].models:
        entry = measures.study.entries[model.entry]
        used = spent(entry.cost, kind)
        if used and model.n:
            found.append(plots.CostPoint(entry.label, used, *model.interval))
    return found


def _machine_rows(entries: Sequence[Entry]) -> list[list[str]]:
    """List the same model on two machines, a laptop and a Colab, a row each."""
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
    note = "Speed: against the slowest of the same model."
    table = Table("Machine against machine", columns, rows, note=note)
    return [Heading("The same model on several machines"), table] if rows else []


def _notes(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Say the times in words, and what another machine changes."""
    notes = []
    for entry in entries:
        cost = entry.cost or Cost()
        gpu = f"{seconds(cost.gpu_s)} GPU" if cost.gpu_s is not None else "GPU time not measured"
        told = f"{entry.label}: {seconds(cost.real_s)} real, {seconds(cost.cpu_s)} CPU, {gpu}"
        notes.append((TIMINGS, f"{told}; peak memory {size(cost.memory_bytes)}, {rate(cost)} questions a second."))
    for row in _machine_rows(entries):
        notes.append((MACHINES, f"{row[0]} on {row[1]} ({row[2]}): {row[3]}, {row[4]} as fast as the slowest."))
    return notes


def _recommendation(measures: Measures) -> list[Finding]:
    study, main = measures.study, measures.study.main
    if not study.budget or main is None:
        return []
    found = recommend(measures.accuracy[main.name], study.entries, study.budget)
    limits = " and ".join(f"{_amount(name, value)} of {NAMES[name]}" for name, value in study.budget.items())
    unknown = (
        f" Not measured, so not considered: {listed(study.entries[m.entry].label for m in found.unmeasured)}."
        if found.unmeasured
        else ""
    )
    if found.best is None:
        return [Finding("none", f"No model keeps within {limits}.{unknown}", 120, alarm=True)]
    entry = study.entries[found.best.entry]
    took = " and ".join(f"{_amount(name, spent(entry.cost, name) or 0)} of {NAMES[name]}" for name in study.budget)
    text = (
        f"Within {limits}, run {entry.label}: {percent(found.best.interval.value)} right (95%: "
        f"{interval(found.best.interval.low, found.best.interval.high)}), taking {took}."
    )
    return [Finding("→", text + _lost(measures, found.best, found.over) + unknown, 120)]


def _amount(name: str, value: float) -> str:
    return UNITS[name](value) if name in UNITS else f"{value:,.0f} J"


def _lost(measures: Measures, best: ModelAccuracy, over: Sequence[ModelAccuracy]) -> str:
    better = [m for m in over if m.n and m.interval.value > best.interval.value]
    if not better:
        return " No model beyond the budget does better."
    top = better[0]
    gap = points(top.interval.value - best.interval.value)
    return f" {measures.study.entries[top.entry].label}, beyond the budget, would get {gap} points more."


def _findings(entries: Sequence[Entry]) -> list[Finding]:
    timed = [(e.cost.real_s, e) for e in entries if e.cost and e.cost.real_s]
    machines = {str(dict(e.machine)) for _, e in timed}
    asked = {e.cost.questions for _, e in timed if e.cost}
    if len(timed) < 2 or len(machines) > 1 or len(asked) > 1:
        return []
    (fast, quick), (slow, late) = min(timed, key=lambda t: t[0]), max(timed, key=lambda t: t[0])
    if slow / fast < 1.2:
        text = (
            f"The slowest model takes hardly longer than the fastest ({seconds(slow)} and {seconds(fast)}):"
            " time does not decide here."
        )
        return [Finding(f"{ratio(slow / fast)}×", text, 45)]
    text = (
        f"{late.label} takes {ratio(slow / fast)} times as long as {quick.label} for the same"
        f" {count(quick.cost.questions if quick.cost else 0)} questions ({seconds(slow)} against"
        f" {seconds(fast)})."
    )
    return [Finding(f"{ratio(slow / fast)}×", text, 65)]


SECTION = Section("cost", "What it costs", _wanted, build)
