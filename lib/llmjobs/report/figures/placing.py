"""Direct labels beside points, moved until they overlap neither each other nor a point."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

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


def place_labels(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each label at the first place around its point where it fits, with a thin line if far."""
    figure: Any = axes.figure
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    centres = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in centres]
    for x, y, label in sorted(points, key=lambda point: -point[1]):
        note = None
        for dx, dy, across, up in OFFSETS:
            if note is not None:
                note.remove()
            far = abs(dy) > 10
            line = (
                {"arrowstyle": "-", "color": "#a3abb4", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3} if far else None
            )
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
