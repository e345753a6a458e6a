"""Each plot as PDF and PNG, and kept for the document; the same input gives the same bytes."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure as Plot

from llmjobs.report.blocks import Figure
from llmjobs.report.figures.style import styled

DPI = 160


def draw_figures(blocks: Sequence[object], folder: Path) -> dict[str, Plot]:
    """Draw every figure among ``blocks`` once, write it below ``folder`` and return the plots by name."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, Plot] = {}
    with styled():
        for block in blocks:
            if isinstance(block, Figure) and block.name not in drawn:
                plot = block.draw()
                plot.draw_without_rendering()
                plot.set_layout_engine("none")
                plot.savefig(folder / f"{block.name}.png", dpi=DPI, metadata={"Software": None})
                plot.savefig(
                    folder / f"{block.name}.pdf",
                    metadata={"CreationDate": None, "Creator": "llmjobs", "Producer": None},
                )
                drawn[block.name] = plot
    return drawn
