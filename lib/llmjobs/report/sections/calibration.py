"""Calibration, a part of the accuracy chapter: whether a model is right as often as it is sure."""

from functools import partial

from llmjobs.report.blocks import Block, Column, Figure, Heading, Table
from llmjobs.report.figures import accuracy as plots
from llmjobs.report.measure import Measures
from llmjobs.report.measure.accuracy import BenchmarkAccuracy
from llmjobs.report.sections.file_names import file_name
from llmjobs.report.wording import decimal, listed, percent


def calibration_blocks(measures: Measures, name: str, found: BenchmarkAccuracy) -> list[Block]:
    """Return plot and table for the models whose option probabilities are recorded."""
    held = {
        p.row: p.calibration for p in measures.patterns[name] if p.calibration is not None and p.calibration.n >= 20
    }
    kinds = listed(sorted({p.scores_kind for p in measures.patterns[name] if p.row in held}))
    order = [model.row for model in found.models if model.row in held]
    if not order:
        return []
    models = [(measures.label(found.benchmark, row), held[row]) for row in order]
    rows = [
        [
            label,
            percent(c.confidence),
            percent(c.accuracy),
            decimal(c.ece, 3),
            decimal(c.brier, 3),
            decimal(c.auroc, 3),
        ]
        for label, c in models
    ]
    columns = [
        Column("Model", "left", 1),
        Column("Mean confidence"),
        Column("Right"),
        Column("ECE"),
        Column("Brier"),
        Column("AUROC"),
    ]
    note = (
        f"Confidence is the probability of the chosen option among the options, from {kinds}. ECE: mean gap between"
        " confidence and accuracy over ten bins (0 is best). Brier: 0 is best, 2 worst. AUROC: chance that"
        " a right answer is surer than a wrong one (50% tells nothing)."
    )
    caption = (
        "Share right against confidence; the area of a point grows with its number of questions, the dashed"
        " line is perfect."
    )
    figure = Figure(file_name("calibration", name, measures), caption, partial(plots.reliability, models))
    return [Heading("Calibration"), figure, Table("Confidence and accuracy", columns, rows, note=note)]
