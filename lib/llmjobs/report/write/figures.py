"""Write each plot as PDF and PNG, and keep it for the document. Equal input gives equal bytes."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure as Plot
from reportlab.pdfgen.canvas import Canvas

from llmjobs import disk
from llmjobs.errors import RunFolderError
from llmjobs.report.blocks import Figure
from llmjobs.report.figure_style import styled
from llmjobs.report.pdf.vector import draw_on
from llmjobs.report.text.fonts import register_fonts
from llmjobs.report.text.visible import visible

DPI = 160


def draw_figures(blocks: Sequence[object], folder: Path) -> dict[str, Plot]:
    """Draw every figure among ``blocks`` once, write it below ``folder`` and return the plots by name.

    Raises:
        RunFolderError: ``folder`` is a link, which may lead anywhere, or cannot be written.

    """
    if folder.is_symlink():
        raise RunFolderError(f"{folder}: is a link, and llmjobs does not write through links; remove it")
    with disk.clear_errors(folder):
        disk.make_folder(folder)
    register_fonts()
    drawn: dict[str, Plot] = {}
    with styled():
        for block in blocks:
            if isinstance(block, Figure) and block.name not in drawn:
                plot = block.draw()
                plot.draw_without_rendering()
                plot.set_layout_engine("none")
                disk.write_whole(folder / f"{block.name}.png", _png(plot))
                disk.write_whole(folder / f"{block.name}.pdf", _pdf(plot, block.caption))
                drawn[block.name] = plot
    return drawn


def _png(plot: Plot) -> bytes:
    data = io.BytesIO()
    plot.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    return data.getvalue()


def _pdf(plot: Plot, caption: str) -> bytes:
    """One page of the plot's size, with embedded fonts in any script, like the report."""
    width, height = (float(side) * 72 for side in plot.get_size_inches())
    data = io.BytesIO()
    canvas = Canvas(data, pagesize=(width, height), invariant=1, initialFontName="Text", lang="en")
    canvas.setTitle(visible(caption, keep_lines=False))
    canvas.setAuthor("llmjobs")
    draw_on(canvas, plot, 1.0)
    canvas.save()
    return data.getvalue()
