"""The chapters of the report, in order. One file each; a new one is added to :data:`ORDER`."""

from llmjobs.report.sections import (
    accuracy,
    converse,
    cost,
    differences,
    making,
    matrix,
    mtbench,
    overlap,
    patterns,
    scores,
)
from llmjobs.report.sections.base import Section

ORDER: tuple[Section, ...] = (
    accuracy.SECTION,
    scores.SECTION,
    cost.SECTION,
    matrix.SECTION,
    differences.SECTION,
    overlap.SECTION,
    patterns.SECTION,
    converse.SECTION,
    mtbench.SECTION,
    making.SECTION,
)
