"""Letters chosen against letters right."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from llmjobs.report.figures import style
from llmjobs.report.figures.naming import short_names
from llmjobs.report.measure.patterns import ModelPatterns


def letters(models: Sequence[tuple[str, ModelPatterns]]) -> Figure:
    """Small multiples: how often each letter is chosen (bars) and how often it is right (marks)."""
    total, models = len(models), models[: style.MOST_PANELS]
    columns = min(4, max(len(models), 2))
    rows = -(-len(models) // columns)
    names = short_names([label for label, _ in models], 22)
    highest = max(
        float(max(m.chosen.max() / max(m.chosen.sum(), 1), m.gold.max() / max(m.gold.sum(), 1))) for _, m in models
    )
    with style.styled():
        figure = style.blank(0.35 + 1.3 * rows)
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(models):
                axes.set_visible(False)
                continue
            found = models[place][1]
            x = np.arange(len(found.chosen))
            chosen = found.chosen / max(found.chosen.sum(), 1)
            gold = found.gold / max(found.gold.sum(), 1)
            ink = style.ORANGE if found.one_letter else style.BLUE
            axes.bar(x, chosen, 0.62, color=ink)
            axes.plot(x, gold, "_", color=style.INK, ms=13, mew=1.4)
            for at, share in enumerate(chosen):
                inside = share > 0.12 * highest
                axes.annotate(
                    f"{100 * share:.0f}",
                    (at, 0 if inside else max(share, gold[at])),
                    xytext=(0, 2),
                    ha="center",
                    textcoords="offset points",
                    fontsize=7,
                    color="white" if inside else style.INK,
                )
            axes.set_xticks(x, [chr(ord("A") + letter) for letter in x])
            axes.set_title(names[place], fontsize=8)
            axes.set_ylim(0, min(1.12, highest * 1.2))
            style.percent_axis(axes, "y")
            style.light_grid(axes, "y")
            axes.tick_params(axis="x", length=0, labelcolor=style.INK)
        if len(models) < total:
            style.say(figure, style.left_out(len(models), total, "letters.csv"))
    return figure
