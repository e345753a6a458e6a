"""How the plots look: few colours that stay apart in grey and for colour-blind eyes, direct labels."""

from contextlib import AbstractContextManager
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from llmjobs.report.figures.lettering import LetteringCanvas

INK, MUTED, FAINT, RULE = "#1f2328", "#5b646e", "#a3abb4", "#d8dde2"
BLUE, ORANGE, GREEN, PURPLE = "#1f5a96", "#d98a1f", "#4c9a83", "#8a5a8f"
PALE = "#b9cde3"
SEQUENCE = "cividis"
"""Perceived evenly with every common colour blindness, and ordered in grey."""
WIDTH_IN = 6.5
"""Width of the text block: 165 mm."""
ROOM_IN = 8.6
"""The tallest plot that fits a page beside its caption."""
SQUARE_IN = 6.4
"""The tallest square of models against models."""
MOST_NAMED, MOST_NUMBERED, MOST_PANELS = 44, 20, 20
"""Models at most in a square with names, in one with numbers in its cells, and in small multiples."""

SETTINGS: dict[str, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "text.color": INK,
    "text.parse_math": False,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "pdf.fonttype": 42,
    "svg.hashsalt": "llmjobs",
}


def styled() -> AbstractContextManager[None]:
    """Return a context in which figures get this look."""
    return rc_context(SETTINGS)  # type: ignore[arg-type]


def blank(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """Return an empty figure that lays itself out, no taller than a page; call it inside :func:`styled`."""
    figure = Figure(figsize=(width_in, min(height_in, ROOM_IN)), layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    LetteringCanvas(figure)
    return figure


def percent_axis(axes: Axes, which: str = "x") -> None:
    """Label an axis of shares in percent."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(lambda value, _: f"{round(100 * value, 2):g}%")


def light_grid(axes: Axes, which: str = "x") -> None:
    """Thin lines behind the data, along one axis."""
    axes.grid(axis="x" if which == "x" else "y")
    axes.tick_params(axis="y" if which == "x" else "x", length=0)


def say(figure: Figure, text: str) -> None:
    """Write below a plot what it leaves out."""
    figure.supxlabel(text, x=0.0, ha="left", fontsize=7.5, color=MUTED)


def left_out(shown: int, total: int, all_in: str) -> str:
    """Say how many models a plot shows, and which file has all of them; empty when it shows all."""
    return "" if shown >= total else f"The most accurate {shown} of {total:,} models; all are in {all_in}."


def ends(count: int, most: int, last: int) -> list[int | None]:
    """Return the places of a long ranking that are drawn: the first ones, a gap (None), the ``last`` ones."""
    if count <= most:
        return list(range(count))
    return [*range(most - last - 1), None, *range(count - last, count)]
