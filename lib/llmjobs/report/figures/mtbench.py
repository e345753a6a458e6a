"""Ratings by category as a radar, and score against the length of answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from llmjobs.report.figures import style
from llmjobs.report.figures.naming import short_names

Values = Mapping[str, Any]
COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.INK, style.MUTED)
DASHES = ("-", "--", ":", "-.")
MOST_AGENTS = 12
"""Agents whose lines on a radar can be followed."""


def radar(rows: Sequence[Values], categories: Sequence[str]) -> Figure:
    """A line an agent over the categories; one without a readable rating there has a gap."""
    total, rows = len(rows), rows[:MOST_AGENTS]
    names = short_names([str(row["model"]) for row in rows], 30)
    angles = np.linspace(0, 2 * np.pi, len(categories), endpoint=False)
    with style.styled():
        figure = style.blank(3.6)
        axes = figure.add_subplot(projection="polar")
        for place, row in enumerate(rows):
            found = {part["category"]: part["score"] for part in row["by_category"]}
            values = [np.nan if found.get(name) is None else float(found[name]) for name in categories]
            axes.plot(
                [*angles, angles[0]],
                [*values, values[0]],
                DASHES[place // len(COLOURS) % len(DASHES)],
                color=COLOURS[place % len(COLOURS)],
                marker="o",
                markersize=2.8,
                label=names[place],
            )
        axes.set_xticks(angles, categories)
        axes.set_ylim(1, 10)
        axes.set_yticks([2, 4, 6, 8, 10])
        axes.grid(visible=True)
        figure.legend(loc="outside right upper")
        if len(rows) < total:
            style.say(figure, f"The first {len(rows)} of {total:,} agents.")
    return figure


def score_against_tokens(rows: Sequence[Values], lengths: Mapping[str, float]) -> Figure:
    """Mean rating with its interval against tokens a turn; a point an agent."""
    names = short_names([str(row["model"]) for row in rows], 30)
    with style.styled():
        figure = style.blank(2.6)
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            x, y = lengths[row["model"]], row["score"]
            ends = [[max(y - row["low"], 0)], [max(row["high"] - y, 0)]]
            axes.errorbar(
                [x], [y], ends, fmt="o", markersize=4, color=COLOURS[place % len(COLOURS)], label=names[place]
            )
        axes.set_xlabel("tokens a turn")
        axes.set_ylabel("mean rating")
        axes.set_ylim(1, 10)
        axes.grid(axis="y")
        if len(rows) <= MOST_AGENTS * 2:
            figure.legend(loc="outside right upper")
    return figure
