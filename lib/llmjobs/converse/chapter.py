"""The report's chapter on conversations: what is lost without history, and the cost of a turn."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot

from llmjobs.changed_prompts import empty_text, thinking_cut_text
from llmjobs.report import figure_style
from llmjobs.report.blocks import Block, Column, Content, Figure, Finding, Heading, Prose, Section, Table
from llmjobs.report.measure import Measures
from llmjobs.report.numbers import count, interval, p_value, percent, points, seconds
from llmjobs.report.read.json_files import read_lines
from llmjobs.report.study import RawRun
from llmjobs.report.wording import DASH, plural
from llmjobs.report.write.notes import HISTORY

Values = Mapping[str, Any]
COLOURS = {
    "none": figure_style.FAINT,
    "full": figure_style.INK,
    "window": figure_style.BLUE,
    "summary": figure_style.ORANGE,
    "retrieve": figure_style.GREEN,
    "hybrid": figure_style.PURPLE,
}


def _panels(memories: Sequence[Values]) -> list[tuple[str, list[Values]]]:
    """The memories of each context size, each with those that have no limit."""
    free = [memory for memory in memories if memory["context"] is None]
    sizes = sorted({memory["context"] for memory in memories if memory["context"]})
    panels = [(f"{count(size)} tokens", [*free, *(m for m in memories if m["context"] == size)]) for size in sizes]
    return panels or [("", free)]


def pooled(memory: Values) -> dict[str, tuple[int, int]]:
    """Right answers and questions by distance, pooled by doublings: 1, 2 to 3, 4 to 7 and on."""
    found: dict[int, tuple[int, int]] = {}
    for row in memory["by_distance"]:
        start = 1 << (int(row["distance"]).bit_length() - 1)
        right, n = found.get(start, (0, 0))
        found[start] = (right + row["correct"], n + row["n"])
    return {str(start) if start == 1 else f"{start} to {2 * start - 1}": found[start] for start in sorted(found)}


def distance_plot(memories: Sequence[Values]) -> Plot:
    """Shares of right answers by distance, one panel per context size. Memories without a limit are in every panel."""
    panels = _panels(memories)
    names = max((list(pooled(memory)) for memory in memories), key=len)
    with figure_style.styled():
        figure = figure_style.blank(2.6)
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, members) in zip(grid, panels, strict=True):
            for memory in members:
                kept = {name: right / n for name, (right, n) in pooled(memory).items() if n}
                _line(axes, memory, [names.index(name) for name in kept], list(kept.values()))
            axes.set_title(title)
            axes.set_xticks(range(len(names)), names)
            axes.set_xlabel("turns between fact and question")
            axes.set_ylim(-0.03, 1.05)
            figure_style.percent_axis(axes, "y")
            axes.grid(axis="y")
        grid[0].set_ylabel("right")
        _legend(figure, grid)
    return figure


def growth_plot(memories: Sequence[Values]) -> Plot:
    """Tokens sent and seconds to the first token, turn by turn, at the largest context."""
    largest = max((memory["context"] for memory in memories if memory["context"]), default=None)
    shown = [memory for memory in memories if memory["context"] in (None, largest)]
    with figure_style.styled():
        figure = figure_style.blank(2.5)
        grid = figure.subplots(1, 2)
        for axes, key, label in zip(grid, ("tokens_sent", "ttft_s"), ("tokens sent", "first token, s"), strict=True):
            for memory in shown:
                rows = [row for row in memory["by_turn"] if row[key] is not None]
                _line(axes, memory, [row["turn"] for row in rows], [row[key] for row in rows], marker="")
            axes.set_xlabel("turn")
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            axes.grid(axis="y")
        _legend(figure, grid)
    return figure


def _line(axes: Axes, memory: Values, x: Sequence[float], y: Sequence[float], marker: str = "o") -> None:
    name = memory["strategy"]
    dashes = "--" if name in ("none", "full") else "-"
    label = "history off" if name == "none" else name
    axes.plot(x, y, dashes, marker=marker, markersize=3.2, color=COLOURS.get(name, figure_style.MUTED), label=label)


def _legend(figure: Plot, grid: Sequence[Axes]) -> None:
    handles: dict[str, Any] = {}
    for axes in grid:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper left",
        ncols=len(handles),
        handlelength=1.6,
    )


SHOWN_TURNS = 6
SHOWN_WORDS = 30
ENOUGH = 5
"""With fewer questions at a distance, no sentence is written about it."""


def _groups(measures: Measures) -> Iterator[tuple[RawRun, Values]]:
    """Every model and set of conversations with at least one answered question, run by run."""
    for run in measures.study.runs:
        part = run.summary.get("converse")
        for group in (part.get("models") or ()) if isinstance(part, Mapping) else ():
            if any(memory["n"] for memory in group["memories"]):
                yield run, group


def _wanted(measures: Measures) -> bool:
    return next(_groups(measures), None) is not None


def build(measures: Measures) -> Content:
    """Tables, figures and a transcript for every model's conversations."""
    blocks: list[Block] = [
        Prose(
            "Scripted conversations state facts and ask for them some turns later; a program checks every answer. The"
            " same conversations run with each memory. Without history, only the newest message is sent; full sends"
            " everything; the others keep within the given number of tokens. The history contains the model's earlier"
            " answers. A turn without an answer counts as an error, never as wrong. Questions within one conversation"
            " are correlated, so intervals and tests treat conversations as independent, not questions."
        )
    ]
    findings: list[Finding] = []
    for place, (run, group) in enumerate(_groups(measures), start=1):
        blocks += [
            Heading(f"{group['model']}, conversations: {group['set']}"),
            _table(group),
            *_figures(place, group),
        ]
        blocks += _transcript(run, group)
        findings += _findings(group)
    return Content(blocks, findings, [(HISTORY, finding.sentence) for finding in findings])


def _name(memory: Values) -> str:
    if not memory["history"]:
        return "history off"
    return str(memory["strategy"]) + (f", {count(memory['context'])} tokens" if memory["context"] else "")


def _table(group: Values) -> Table:
    columns = [
        Column("Memory", "left", 1),
        Column("Right"),
        Column("95% interval"),
        Column("Questions"),
        Column("Errors"),
        Column("Sent per turn"),
        Column("Dropped per turn"),
        Column("Summaries"),
        Column("First token"),
        Column("Turn"),
    ]
    rows = []
    for memory in group["memories"]:
        turns = memory["turns"] - memory["errors"]
        has = memory["acc"] is not None
        rows.append([
            _name(memory), percent(memory["acc"]) if has else DASH,
            interval(memory["low"], memory["high"]) if has else DASH, count(memory["n"]), count(memory["errors"]),
            *(f"{memory[key] / turns:,.0f}" if turns else DASH for key in ("tokens_sent", "tokens_dropped")),
            count(memory["tokens_side"]), seconds(memory["ttft_s"]), seconds(memory["real_s"]),
        ])  # fmt: skip
    cut = [(_name(memory), memory["thinking_cut"]) for memory in group["memories"] if memory.get("thinking_cut")]
    note = (
        "Sent, dropped: tokens. Summaries: total tokens used to write them. First token, turn: median seconds from the "
        "question to the first token of the answer and to its end."
        + "".join(f" {_name(m)}: {empty_text(m['empty'])}." for m in group["memories"] if m.get("empty"))
        + "".join(f" {name}: {thinking_cut_text(number)}." for name, number in cut)
    )
    return Table("Each memory on the same questions", columns, rows, note=note)


def _figures(place: int, group: Values) -> list[Block]:
    by_distance = "Right answers by turns between fact and question (1, 2 to 3, 4 to 7, …), one panel per context size."
    growth = "Tokens sent and seconds to the first token as the conversation grows: medians over the conversations."
    figures: list[Block] = []
    if len({row["distance"] for memory in group["memories"] for row in memory["by_distance"]}) > 1:
        figures.append(Figure(f"converse-distance-{place}", by_distance, partial(distance_plot, group["memories"])))
    if any(len(memory["by_turn"]) > 1 for memory in group["memories"]):
        figures.append(Figure(f"converse-growth-{place}", growth, partial(growth_plot, group["memories"])))
    return figures


def _transcript(run: RawRun, group: Values) -> list[Block]:
    """The last turns of the conversation on which the memories differ most, with the answers of each memory."""
    shown = _distinct(group["memories"])
    said = {_name(memory): _records(run, group, memory) for memory in shown}
    if len(said) < 2 or not all(said.values()):
        return []
    rights = {name: {key: record.get("correct") for key, record in found.items()} for name, found in said.items()}
    first = next(iter(rights))
    scores: dict[str, int] = {}
    for key, right in rights[first].items():
        if right:
            lost = sum(other.get(key) is False for other in rights.values())
            scores[key[0]] = scores.get(key[0], 0) + lost
    if not scores:
        return []
    best = max(scores, key=lambda conversation: scores[conversation])
    turns = [key for key in said[first] if key[0] == best]
    asked = max((place for place, key in enumerate(turns) if rights[first][key]), default=len(turns) - 1)
    chosen = turns[max(0, asked - SHOWN_TURNS + 1) : asked + 1]
    columns = [Column("Turn"), Column("User", "left", 1.3), *(Column(name, "left", 1) for name in said)]
    rows = [
        [
            str(key[1]),
            _short(said[first][key].get("question")),
            *(_answer(found.get(key)) for found in said.values()),
        ]
        for key in chosen
    ]
    note = "Tick: right. Cross: wrong. No mark: the turn is not checked."
    return [Table(f"One conversation with each memory ({best})", columns, rows, note=note)]


def _distinct(memories: Sequence[Values]) -> list[Values]:
    """Full history, history off, and the window and retrieval at the smallest context."""
    smallest = min((memory["context"] for memory in memories if memory["context"]), default=None)
    found = {m["strategy"]: m for m in memories if m["context"] in (None, smallest)}
    return [found[name] for name in ("full", "none", "window", "retrieve") if name in found]


def _records(run: RawRun, group: Values, memory: Values) -> dict[tuple[str, int], Values]:
    name = memory["strategy"] + (f".{memory['context']}" if memory["context"] else "")
    path = run.path / "converse" / group["model"] / f"{group['set']}.{name}" / "records.jsonl"
    lines = read_lines(path, run, f"{run.path.name}/{name}") if path.exists() else []
    return {(str(line.get("conversation")), int(line.get("turn") or 0)): line for line in lines}


def _short(text: object) -> str:
    words = str(text or "").split()
    return " ".join(words[:SHOWN_WORDS]) + (" …" if len(words) > SHOWN_WORDS else "")


def _answer(record: Values | None) -> str:
    if record is None or record.get("status") == "error":
        return "no answer"
    mark = {True: " ✓", False: " ✗"}.get(record.get("correct"), "")  # type: ignore[arg-type]
    return _short(record.get("answer")) + mark


def _findings(group: Values) -> list[Finding]:
    pair = group["history"]
    if not pair:
        return []
    gap = (
        f"{points(pair['difference'], sign=True)} points (95%: {interval(pair['low'], pair['high'])}, {_tested(pair)})"
    )
    where = f"In the conversations {group['set']}, {group['model']}"
    if pair["p"] < 0.05 and not pair["low"] <= 0 <= pair["high"]:
        text = (
            f"{where} has {percent(pair['acc_first'])} of {plural(pair['n'], 'question')} right with the history and"
            f" {percent(pair['acc_second'])} without it: {gap}."
        )
    else:
        text = (
            f"{where} is not measurably better or worse with the history than without it:"
            f" {percent(pair['acc_first'])} and {percent(pair['acc_second'])} of {plural(pair['n'], 'question')}"
            f" right, {gap}."
        )
    return [Finding(f"{points(pair['difference'], sign=True)} pts", text, 85), *_window_finding(group)]


def _tested(pair: Values) -> str:
    """Name the test behind the summary's p. Older summaries treated questions of one conversation as independent."""
    if conversations := pair.get("conversations"):
        return f"{p_value(pair['p'])}, sign-flip test over {plural(conversations, 'conversation')}"
    return f"{p_value(pair['p'])}, McNemar's exact test, which treats the questions of one conversation as independent"


def _window_finding(group: Values) -> list[Finding]:
    """Compare the shortest window with the whole history by distance, if the two differ."""
    found = {m["strategy"]: m for m in _distinct(group["memories"])}
    if not {"full", "window"} <= set(found):
        return []
    tested = next((pair for pair in group["pairs"] if pair["second"] == _key(found["window"])), None)
    if tested is None or tested["p"] >= 0.05 or tested["difference"] <= 0:
        return []
    full, window = (pooled(found[name]) for name in ("full", "window"))
    both = [name for name in full if full[name][1] >= ENOUGH and window.get(name, (0, 0))[1] >= ENOUGH]
    if len(both) < 2:
        return []
    near, far = both[0], both[-1]
    right = [f"{count(part[place][0])} of {count(part[place][1])}" for place in (near, far) for part in (window, full)]
    gap = f"{points(tested['difference'])} points lower (95%: {interval(tested['low'], tested['high'])})"
    text = (
        f"In the conversations {group['set']}, {group['model']} with a window of {count(found['window']['context'])}"
        f" tokens scores {gap} than with the whole history: {right[0]} right at a distance of {near} (whole history"
        f" {right[1]}), {right[2]} at {far} turns (whole history {right[3]})."
    )
    return [Finding(f"{points(-tested['difference'], sign=True)} pts", text, 60)]


def _key(memory: Values) -> str:
    """Return a memory's name in the summary's pairs: ``window.128``."""
    return str(memory["strategy"]) + (f".{memory['context']}" if memory["context"] else "")


SECTION = Section("converse", "What a conversation loses without its history", _wanted, build)
