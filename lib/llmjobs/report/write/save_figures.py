"""Write each plot as PDF and PNG, and keep it for the document. Equal input gives equal bytes."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure as Plot
from reportlab.pdfgen.canvas import Canvas

from llmjobs import file_operations
from llmjobs.errors import RunFolderError
from llmjobs.report.blocks import Figure
from llmjobs.report.figure_style import lay_out, styled
from llmjobs.report.pdf.vector import Drawing, trace
from llmjobs.report.text.fonts import register_fonts
from llmjobs.report.text.lettering import LetteringCanvas
from llmjobs.report.text.visible import visible

DPI = 160


def draw_figures(blocks: Sequence[object], folder: Path) -> dict[str, Drawing]:
    """Draw every figure among ``blocks`` once, write it below ``folder`` and return the drawings by name.

    Raises:
        RunFolderError: ``folder`` is a link, which may lead anywhere, or cannot be written.

    """
    if folder.is_symlink():
        raise RunFolderError(f"{folder}: is a link, and llmjobs does not write through links; remove it")
    with file_operations.clear_errors(folder):
        file_operations.make_folder(folder)
    register_fonts()
    drawn: dict[str, Drawing] = {}
    with styled():
        for block in blocks:
            if isinstance(block, Figure) and block.name not in drawn:
                plot = block.draw()
                lay_out(plot)
                plot.set_layout_engine("none")
                file_operations.write_whole(folder / f"{block.name}.png", _png(plot))
                drawn[block.name] = trace(plot)
                file_operations.write_whole(folder / f"{block.name}.pdf", _pdf(drawn[block.name], block.caption))
    return drawn


def _png(plot: Plot) -> bytes:
    data = io.BytesIO()
    plot.dpi = DPI
    # savefig would draw it twice
    LetteringCanvas(plot).print_png(data, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return data.getvalue()


def _pdf(drawing: Drawing, caption: str) -> bytes:
    """One page of the plot's size, with embedded fonts in any script, like the report."""
    data = io.BytesIO()
    size = (drawing.width, drawing.height)
    canvas = Canvas(data, pagesize=size, invariant=1, initialFontName="Text", lang="en")
    canvas.setTitle(visible(caption, keep_lines=False))
    canvas.setAuthor("llmjobs")
    drawing.draw_on(canvas)
    canvas.save()
    return data.getvalue()
