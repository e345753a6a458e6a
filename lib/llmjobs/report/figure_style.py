"""The style of the plots: colours, labels beside points, and names that fit and remain distinct."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox

from llmjobs.report.text.lettering import LetteringCanvas

# A few colours that remain distinct in grey and for colour-blind eyes, and direct labels.

INK, MUTED, FAINT, RULE = "#1f2328", "#5b646e", "#a3abb4", "#d8dde2"
BLUE, ORANGE, GREEN, PURPLE = "#1f5a96", "#d98a1f", "#4c9a83", "#8a5a8f"
PALE, PALE_ORANGE, NEUTRAL = "#b9cde3", "#f0d9b5", "#f3f4f6"
AMBER = "#a8620a"
"""Text that warns."""
EMPTY = "#e3e7eb"
"""A place where a mark could be."""
HEAT = "Blues"
"""Shades of a matrix."""
SEQUENCE = "cividis"
"""Perceptually uniform for all common kinds of colour blindness, and ordered in grey."""
WIDTH_IN = 6.5
"""Width of the text block: 165 mm."""
ROOM_IN = 8.6
"""Height of the tallest plot that fits on a page with its caption."""
SQUARE_IN = 6.4
"""Size of the largest square of models against models."""
MOST_NAMED, MOST_NUMBERED, MOST_PANELS = 44, 20, 20
"""Maximum number of models in a square with names, in one with numbers in its cells, and in small multiples."""

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
    """Return an empty figure with automatic layout, no taller than a page; call it inside :func:`styled`."""
    figure = Figure(figsize=(width_in, min(height_in, ROOM_IN)), layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    LetteringCanvas(figure)
    return figure


def lay_out(figure: Figure) -> None:
    """Find the places of the parts of a figure, for what is drawn next or measured."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)


def percent_axis(axes: Axes, which: str = "x") -> None:
    """Label an axis of shares in percent."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(lambda value, _: f"{round(100 * value, 2):g}%")


def light_grid(axes: Axes, which: str = "x") -> None:
    """Draw thin grid lines behind the data, along one axis."""
    axes.grid(axis="x" if which == "x" else "y")
    axes.tick_params(axis="y" if which == "x" else "x", length=0)


def say(figure: Figure, text: str) -> None:
    """Write a note on omitted items below a plot."""
    figure.supxlabel(text, x=0.0, ha="left", fontsize=7.5, color=MUTED)


def left_out(shown: int, total: int, all_in: str) -> str:
    """Say how many models a plot shows, and which file has all of them; empty if it shows all."""
    return "" if shown >= total else f"The most accurate {shown} of {total:,} models; all are in {all_in}."


def ends(count: int, most: int, last: int) -> list[int | None]:
    """Return the places of a long ranking that are drawn: the first ones, a gap (None), the ``last`` ones."""
    if count <= most:
        return list(range(count))
    return [*range(most - last - 1), None, *range(count - last, count)]


# Short names: shortened where they are alike, not where they differ.

PARTS = re.compile(r"[\s\-_/.:()]+|[^\s\-_/.:()]+")
"""Separators with the text between them."""


def short_names(names: Sequence[str], limit: int = 34) -> list[str]:
    """Return names of at most ``limit`` width that are as distinct as the full names.

    Words that other names also have are left out, long ones first, sizes and versions last: beside
    ``Llama-3.2-3B-Instruct``, ``Llama-3.2-1B-Instruct`` becomes ``Llama-3.2-1B-…``, never ``Llama-3.2-…struct``.
    """
    shared = Counter(part for name in set(names) for part in set(PARTS.findall(name)))
    cut = [_shortened(name, limit, shared) for name in names]
    if len(set(cut)) == len(set(names)):
        return cut
    return [f"{n + 1}: {_shortened(name, limit - len(str(n + 1)) - 2, shared)}" for n, name in enumerate(names)]


def name_width(name: str) -> int:
    """Width in letters: East Asian letters count twice, combining marks not at all."""
    return sum(
        2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 1
        for c in name
    )


def _shortened(name: str, limit: int, shared: Counter[str]) -> str:
    if name_width(name) <= limit:
        return name
    parts = PARTS.findall(name)
    words = [place for place, part in enumerate(parts) if part[0].isalnum() and shared[part] > 1]
    words.sort(key=lambda place: _worth(parts[place], shared[parts[place]], place))
    gone: set[int] = set()
    for place in words:
        gone.add(place)
        text = _joined(parts, gone)
        if name_width(text) <= limit:
            return text
    return _cut(_joined(parts, gone), max(limit, 3))


def _worth(part: str, names: int, place: int) -> tuple[bool, int, int, int]:
    """Sort key for leaving out a word: long ones first, then those of most names; sizes and versions last."""
    return any(c.isdigit() for c in part), -len(part), -names, -place


def _joined(parts: Sequence[str], gone: set[int]) -> str:
    """Join the parts; a sequence of omitted parts, with their separators, becomes one ellipsis."""
    text = "".join("…" if place in gone else part for place, part in enumerate(parts))
    return re.sub(r"…([\s\-_/.:()]*…)+", "…", text)


def _cut(name: str, limit: int) -> str:
    """Remove the middle of a name, without separating letters from their marks."""
    if name_width(name) <= limit:
        return name
    letters = _letters(name)
    head = limit * 3 // 5
    left = _taken(letters, head)
    right = _taken(letters[::-1], limit - head - 1)
    return f"{''.join(letters[:left])}…{''.join(letters[len(letters) - right :])}"


def _letters(name: str) -> list[str]:
    letters: list[str] = []
    for character in name:
        if letters and unicodedata.category(character)[0] == "M":
            letters[-1] += character
        else:
            letters.append(character)
    return letters


def _taken(letters: Sequence[str], room: int) -> int:
    """Return how many letters fit into ``room``."""
    for place, letter in enumerate(letters):
        room -= name_width(letter)
        if room < 0:
            return place
    return len(letters)


# Direct labels beside points, placed so that they overlap neither each other nor a point.

OFFSETS = (
    (6, -7, "left", "top"),
    (-6, 7, "right", "bottom"),
    (6, 7, "left", "bottom"),
    (-6, -7, "right", "top"),
    (6, 0, "left", "center"),
    (-6, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (8, 18, "left", "bottom"),
    (-8, 18, "right", "bottom"),
    (8, -18, "left", "top"),
    (-8, -18, "right", "top"),
    (10, 30, "left", "bottom"),
    (-10, 30, "right", "bottom"),
    (10, -30, "left", "top"),
    (-10, -30, "right", "top"),
)


NUMBER_OFFSETS = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
    *OFFSETS,
)
"""The places for a number: close beside its point first, where it cannot be taken for a neighbour's."""


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float, str]],
    offsets: Sequence[tuple[int, int, str, str]] = OFFSETS,
) -> None:
    """Write each label at the first place around its point where it fits, with a thin line if far."""
    figure: Any = axes.figure
    lay_out(figure)
    frame = axes.get_window_extent()
    centres = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in centres]
    for x, y, label in sorted(points, key=lambda point: -point[1]):
        note = None
        for dx, dy, across, up in offsets:
            if note is not None:
                note.remove()
            far = abs(dy) > 10
            line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3} if far else None
            note = axes.annotate(
                label,
                (x, y),
                xytext=(dx, dy),
                textcoords="offset points",
                ha=across,
                va=up,
                fontsize=7.6,
                zorder=5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
                arrowprops=line,
            )
            box = note.get_window_extent()
            inside = frame.x0 - 2 <= box.x0 and box.x1 <= frame.x1 + 2 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        if note is not None:
            taken.append(note.get_window_extent())
