"""Text of the plots on a pixel canvas, measured and drawn with the same letters as in the PDF.

matplotlib's own text uses one font per word and has no box for missing letters. Here a label is equally wide and reads
the same in the PNG, in the PDF and in the layout that both share.
"""

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font, LoadFlags
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from llmjobs.report.text.fonts import Face, font_file
from llmjobs.report.text.shaping import EM, Run, glyphs_of, run_width, set_line, text_width
from llmjobs.report.text.visible import visible

ASCENT, DESCENT = 0.72, 0.2


def face_of(prop: FontProperties) -> Face:
    """Return the face for matplotlib's font properties."""
    weight = prop.get_weight()
    heavy = weight in ("bold", "semibold", "heavy") or (isinstance(weight, int | float) and weight >= 600)
    return "bold" if heavy else "italic" if prop.get_style() == "italic" else "regular"


class LetteringCanvas(FigureCanvasAgg):
    """A pixel canvas whose renderer draws text as the report does."""

    def get_renderer(self) -> "LetteringRenderer":
        """Return the renderer for the figure's size and resolution."""
        width, height = self.figure.bbox.size
        key = width, height, self.figure.dpi
        if getattr(self, "_lettering_key", None) != key:
            self.renderer: LetteringRenderer = LetteringRenderer(width, height, self.figure.dpi)  # type: ignore[no-untyped-call]
            self._lettering_key = key
        else:
            self.renderer.clear()  # type: ignore[no-untyped-call]
        return self.renderer


class LetteringRenderer(RendererAgg):
    """Draws letters as filled outlines."""

    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: Any) -> tuple[float, float, float]:
        """Measure in the fonts that will be printed."""
        size = prop.get_size_in_points() * self.dpi / 72
        return text_width(visible(s, keep_lines=False), face_of(prop), size), size * ASCENT, size * DESCENT

    def draw_text(
        self,
        gc: Any,
        x: float,
        y: float,
        s: str,
        prop: FontProperties,
        angle: float,
        ismath: Any = False,
        mtext: Any = None,
    ) -> None:
        """Print one line, turned by ``angle`` degrees."""
        size = prop.get_size_in_points() * self.dpi / 72
        outline = line_outline(visible(s, keep_lines=False), face_of(prop))
        if outline is None:
            return
        gc.set_linewidth(0)
        place = Affine2D().scale(size / EM).rotate_deg(angle).translate(x, self.height - y)
        self.draw_path(gc, outline, place, gc.get_rgb())  # type: ignore[no-untyped-call]


def line_outline(text: str, face: Face) -> Path | None:
    """Return the outline of a line of text, in thousandths of its size; None if there is nothing to see."""
    parts: list[Path] = []
    x = 0.0
    for run in set_line(text, face):
        if run.boxed:
            parts += _box(run, x)
        else:
            at = x
            for glyph in glyphs_of(run):
                _place(parts, run.font, glyph.number, at + glyph.x, glyph.y, 1.0)
                at += glyph.advance
        x += run_width(run, EM)
    return Path.make_compound_path(*parts) if parts else None


def _place(parts: list[Path], font: str, number: int, x: float, y: float, scale: float) -> None:
    shape = _glyph(font, number)
    points = np.asarray(shape.vertices)
    if len(points):
        parts.append(Path(points * scale + (x, y), shape.codes))


def _box(run: Run, x: float) -> list[Path]:
    """Return a frame with the code point in small letters, as :func:`draw_line` prints it."""
    wide, thick = run_width(run, EM), EM * 0.04
    left, right, low, high = x + EM * 0.08, x + wide - EM * 0.08, -EM * 0.18, EM * 0.68
    frame = [(left, low), (right, low), (right, high), (left, high), (left, low)]
    inner = [
        (left + thick, low + thick), (left + thick, high - thick), (right - thick, high - thick),
        (right - thick, low + thick), (left + thick, low + thick),
    ]  # fmt: skip
    parts = [Path(frame, closed=True), Path(inner, closed=True)]
    at = x + EM * 0.2
    for glyph in glyphs_of(run):
        _place(parts, run.font, glyph.number, at, 0.0, 0.62)
        at += glyph.advance * 0.62
    return parts


_FONTS: dict[str, FT2Font] = {}
_GLYPHS: dict[tuple[str, int], Path] = {}


def _glyph(font: str, number: int) -> Path:
    """Return the outline of one glyph at a size of :data:`EM`."""
    if (font, number) not in _GLYPHS:
        if font not in _FONTS:
            _FONTS[font] = FT2Font(font_file(font))
            _FONTS[font].set_size(EM, 72)
        _FONTS[font].load_glyph(number, LoadFlags.NO_HINTING)  # type: ignore[arg-type]
        vertices, codes = _FONTS[font].get_path()
        _GLYPHS[font, number] = Path(vertices, codes)
    return _GLYPHS[font, number]
