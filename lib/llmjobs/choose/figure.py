"""The figure: accuracy against memory and decode speed, limits as shaded regions, a numbered key below."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot
from matplotlib.typing import HashableList

from llmjobs.choose.answer import outcome
from llmjobs.choose.constraints import Constraint
from llmjobs.choose.decide import MEETS, MISSES, Decision, Judged
from llmjobs.report import figure_style
from llmjobs.report.figure_style import NUMBER_OFFSETS, place_labels, short_names
from llmjobs.report.numbers import percent
from llmjobs.report.sections.cost import BYTES, fitting_unit

KEY_ROW_IN, PLOT_IN = 0.17, 2.75
LONGEST = 76
"""Letters of a line of the key, beside the name."""
MOST = 30
"""Candidates that are drawn; the table has all."""


def draw(decision: Decision) -> Plot:
    """Draw one panel for memory and one for decode speed, each only if it was measured of a candidate."""
    order = [one for one in _in_order(decision) if one.score is not None][:MOST]
    context = decision.wish.context
    panels = [key for key in ("memory", "decode") if any(one.candidate.measured(key, context)[0] for one in order)]
    with figure_style.styled():
        figure = figure_style.blank(PLOT_IN + KEY_ROW_IN * (len(order) + 1))
        rows: list[HashableList[str]] = [[*(panels or ["none"])], ["key"] * max(len(panels), 1)]
        ratios = [PLOT_IN, KEY_ROW_IN * (len(order) + 1)]
        axes = figure.subplot_mosaic(rows, gridspec_kw={"height_ratios": ratios})
        named = []
        for at, key in enumerate(panels or ["none"]):
            named.append((axes[key], _panel(axes[key], key, order, decision, first=at == 0)))
        _write_key(axes["key"], order, decision)
        for panel, points in named:
            place_labels(panel, points, NUMBER_OFFSETS)
    return figure


def _in_order(decision: Decision) -> list[Judged]:
    """The chosen one, then those that meet the limits, then the others; the most accurate first."""
    return sorted(decision.judged, key=lambda one: (one is not decision.winner, one.state != MEETS))


def _panel(
    axes: Axes, key: str, order: Sequence[Judged], decision: Decision, *, first: bool
) -> list[tuple[float, float, str]]:
    """Draw the points of a panel; return the place of each with its number."""
    context = decision.wish.context
    held = [
        (number, one, measured.value)
        for number, one in enumerate(order, 1)
        if key != "none" and (measured := one.candidate.measured(key, context)[0])
    ]
    limit = next((one for one in decision.wish.constraints if one.key == key), None)
    values = [value for _, _, value in held] + ([limit.limit] if limit else [])
    unit = fitting_unit(max(values), BYTES) if key == "memory" else None
    factor = unit.factor if unit else 1.0
    points = []
    for number, one, value in held:
        assert one.score is not None
        _point(axes, value / factor, one, decision)
        points.append((value / factor, one.score.value, str(number)))
    _limits(axes, [value / factor for value in values], limit, factor)
    axes.set_xlabel(f"memory, {unit.name}" if unit else "new tokens per second" if key == "decode" else "")
    if first:
        axes.set_ylabel("accuracy")
    figure_style.percent_axis(axes, "y")
    axes.grid(axis="y")
    ends = [end for one in order if one.score for end in (one.score.low, one.score.high)]
    spare = 0.1 * (max(ends) - min(ends))
    axes.set_ylim(min(ends) - spare, max(ends) + spare)
    return points


def _point(axes: Axes, x: float, one: Judged, decision: Decision) -> None:
    assert one.score is not None
    chosen, meets = one is decision.winner, one.state == MEETS
    ink = figure_style.ORANGE if chosen else figure_style.BLUE if meets else figure_style.FAINT
    line = ink if chosen else figure_style.RULE
    axes.plot([x, x], [one.score.low, one.score.high], color=line, linewidth=1.2, zorder=1)
    if chosen:
        axes.plot([x], [one.score.value], "o", mfc="none", mec=ink, ms=11, mew=1.4, zorder=3)
    shape = "o" if meets or one.state == MISSES else "D"
    filled = chosen or (meets and one in decision.group)
    axes.plot([x], [one.score.value], shape, mfc=ink if filled else "white", mec=ink, ms=5.2, zorder=3)


def _limits(axes: Axes, values: Sequence[float], limit: Constraint | None, factor: float) -> None:
    """Set the axis to the values, and shade what a limit rules out."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low > 0 and high > 20 * low:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter("")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlim(low / 1.6, high * 1.6)
    else:
        axes.set_xlim(0, high * 1.18)
    if limit is None:
        return
    at, (left, right) = limit.limit / factor, axes.get_xlim()
    span = (at, right) if limit.quantity.at_most else (left, at)
    axes.axvspan(*span, color=figure_style.PALE_ORANGE, alpha=0.45, linewidth=0, zorder=0)
    axes.axvline(at, color=figure_style.AMBER, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0)
    axes.annotate(
        limit.stated,
        (at, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center" if 0.25 < (at - left) / (right - left) < 0.75 else "right" if at > (left + right) / 2 else "left",
        va="bottom",
        color=figure_style.AMBER,
        fontsize=7.2,
    )


def _write_key(axes: Axes, order: Sequence[Judged], decision: Decision) -> None:
    """Write number, name, accuracy and what became of each candidate, one line each."""
    axes.axis("off")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(order) + 0.5, 0)
    names = short_names([one.label for one in order], 36)
    for row, (one, name) in enumerate(zip(order, names, strict=True)):
        assert one.score is not None
        chosen = one is decision.winner
        ink = figure_style.INK if one.state == MEETS else figure_style.MUTED
        weight = "bold" if chosen else "normal"
        said = outcome(decision, one)
        if one.state != MEETS:
            said = f"{said}: {'; '.join(one.reasons)}"
        if len(said) > LONGEST:
            said = said[: LONGEST - 2].rstrip() + " …"
        for x, text, side in (
            (0.025, str(row + 1), "right"),
            (0.04, name, "left"),
            (0.37, percent(one.score.value), "right"),
            (0.385, said, "left"),
        ):
            axes.text(x, row + 0.5, text, ha=side, va="center", fontsize=7.2, color=ink, weight=weight, in_layout=False)
