"""Each plot as PDF and PNG, and kept for the document; the same input gives the same bytes."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure as Plot
from reportlab.pdfgen.canvas import Canvas

from llmjobs.report.blocks import Figure
from llmjobs.report.figures.style import styled
from llmjobs.report.pdf.vector import draw_on
from llmjobs.report.text.fonts import register_fonts
from llmjobs.report.text.visible import visible

DPI = 160


def draw_figures(blocks: Sequence[object], folder: Path) -> dict[str, Plot]:
    """Draw every figure among ``blocks`` once, write it below ``folder`` and return the plots by name."""
    folder.mkdir(parents=True, exist_ok=True)
    register_fonts()
    drawn: dict[str, Plot] = {}
    with styled():
        for block in blocks:
            if isinstance(block, Figure) and block.name not in drawn:
                plot = block.draw()
                plot.draw_without_rendering()
                plot.set_layout_engine("none")
                plot.savefig(folder / f"{block.name}.png", dpi=DPI, metadata={"Software": None})
                _save_pdf(plot, folder / f"{block.name}.pdf", block.caption)
                drawn[block.name] = plot
    return drawn


def _save_pdf(plot: Plot, path: Path, caption: str) -> None:
    """Write one page of the plot's size, by the same means as the report: embedded fonts, any script."""
    width, height = (float(side) * 72 for side in plot.get_size_inches())
    canvas = Canvas(str(path), pagesize=(width, height), invariant=1, initialFontName="Text", lang="en")
    canvas.setTitle(visible(caption, keep_lines=False))
    canvas.setAuthor("llmjobs")
    draw_on(canvas, plot, 1.0)
    canvas.save()
