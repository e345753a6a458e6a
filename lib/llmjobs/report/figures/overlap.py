"""Shared mistakes: how many models miss a question, which sets of models, and how alike pairs are."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from llmjobs.report.figures import style
from llmjobs.report.figures.difference import name_both
from llmjobs.report.figures.naming import short_names
from llmjobs.report.measure.overlap import Overlap
from llmjobs.report.wording import count, decimal

UPSET_SETS = 22


def missed_by(found: Overlap) -> Figure:
    """Draw questions by how many models miss them (bars), against independence (diamonds)."""
    places = np.arange(len(found.missed_by))
    with style.styled():
        figure = style.blank(2.5)
        axes = figure.subplots()
        axes.bar(places, found.missed_by, 0.62, color=style.BLUE, label="observed")
        axes.plot(
            places,
            found.expected,
            "D",
            color=style.ORANGE,
            ms=5,
            mec="white",
            mew=0.6,
            label="expected, were the models independent within each subject",
        )
        highest = float(max(found.missed_by.max(), found.expected.max()))
        for place in places:
            number = int(found.missed_by[place])
            inside, low = number > 0.16 * highest, found.expected[place] > 0.5 * number
            axes.annotate(
                count(number),
                (place, (0 if low else number) if inside else max(number, found.expected[place])),
                xytext=(0, 4 if low or not inside else -11),
                fontsize=8,
                textcoords="offset points",
                ha="center",
                color="white" if inside else style.INK,
                fontweight="bold",
            )
        axes.set_xticks(places, ["none", *map(str, places[1:-1]), f"all {places[-1]}"])
        axes.set_xlabel("models that miss the question")
        axes.set_ylabel("questions")
        axes.margins(y=0.14)
        axes.yaxis.set_major_formatter(lambda value, _: count(value))
        style.light_grid(axes, "y")
        figure.legend(loc="outside upper left", ncols=2, handlelength=1.2)
    return figure


def upset(found: Overlap, labels: Sequence[str]) -> Figure:
    """Draw the most frequent sets of models that miss a question together, named by ``labels``."""
    sets = found.combinations[:UPSET_SETS]
    models = len(labels)
    with style.styled():
        figure = style.blank(1.35 + 0.2 * models)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.2, 0.2 * models])
        for x, (members, number) in enumerate(sets):
            whole = len(members) == models
            ink = style.ORANGE if whole else style.BLUE
            upper.bar(x, number, 0.66, color=ink)
            upper.annotate(
                count(number),
                (x, number),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
            inside = sorted(members)
            lower.plot([x] * models, range(models), "o", color="#e3e7eb", ms=4.6)
            lower.plot([x] * len(inside), inside, "-o", color=ink, ms=4.6, linewidth=1.2)
        lower.set_yticks(range(models), short_names(labels, 30), fontsize=7.6)
        lower.set_ylim(models - 0.5, -0.5)
        lower.set_xlim(-0.7, max(len(sets), 8) - 0.3)
        lower.set_xticks([])
        lower.tick_params(length=0, labelcolor=style.INK)
        upper.tick_params(axis="x", length=0)
        upper.set_ylabel("questions")
        upper.margins(y=0.16)
        for spine in (*lower.spines.values(), upper.spines["bottom"]):
            spine.set_visible(False)
    return figure


def likeness(found: Overlap, labels: Sequence[str]) -> Figure:
    """φ of the mistakes below the diagonal, the same-wrong-answer share in percent above it."""
    place = {row: at for at, row in enumerate(found.rows)}
    models = len(found.rows)
    shade = colormaps["Blues"]
    norm = Normalize(0, 1)
    with style.styled():
        figure = style.blank(1.2 + 0.32 * models)
        axes = figure.subplots()
        for pair in found.pairs:
            a, b = sorted((place[pair.first], place[pair.second]))
            cells = (
                (b, a, pair.errors.phi, decimal(pair.errors.phi)),
                (a, b, pair.same.share, f"{100 * pair.same.share:.0f}%" if pair.same.n else "–"),
            )
            for y, x, value, text in cells:
                known = not np.isnan(value)
                back = shade(0.08 + 0.7 * float(norm(max(value, 0)))) if known else "#f3f4f6"
                axes.fill_between([x, x + 1], y, y + 1, color=back, linewidth=0)
                dark = known and value > 0.72
                axes.text(
                    x + 0.5,
                    y + 0.5,
                    text,
                    ha="center",
                    va="center",
                    fontsize=7.4,
                    color="white" if dark else style.INK,
                )
        axes.set_xlim(0, models)
        axes.set_ylim(models, 0)
        name_both(axes, labels)
    return figure
