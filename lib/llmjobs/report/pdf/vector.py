"""Draws a matplotlib figure on reportlab canvases: vectors, and text in the document's own fonts.

A figure is laid out and traced once (:func:`trace`). The document is built twice, the second time with the page numbers
of its contents, and every plot is also saved as a file; all of these use the same :class:`Drawing`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.transforms import Transform
from reportlab.lib.colors import Color
from reportlab.pdfgen.canvas import Canvas
from reportlab.pdfgen.pathobject import PDFPathObject
from reportlab.platypus import Flowable

from llmjobs.report.text.fonts import Face
from llmjobs.report.text.lettering import face_of
from llmjobs.report.text.shaping import draw_line, text_width
from llmjobs.report.text.visible import visible

CAPS = {"butt": 0, "round": 1, "projecting": 2}
JOINS = {"miter": 0, "round": 1, "bevel": 2}


Mark = Callable[[Canvas], None]
"""Puts one line, area or text on a canvas."""
Box = tuple[float, float, float, float]
Rgba = tuple[float, float, float, float]


@dataclass(frozen=True)
class Drawing:
    """A traced figure: its size in points, and everything on it from back to front."""

    width: float
    height: float
    marks: tuple[Mark, ...]

    def draw_on(self, canvas: Canvas, scale: float = 1.0) -> None:
        """Draw it from the canvas' origin."""
        canvas.saveState()
        canvas.scale(scale, scale)
        for mark in self.marks:
            mark(canvas)
        canvas.restoreState()


def trace(figure: Figure) -> Drawing:
    """Trace a figure whose layout is settled, at 72 dots per inch, and give it its own resolution back."""
    width, height = (float(side) * 72 for side in figure.get_size_inches())
    dpi = figure.dpi
    renderer = TracingRenderer(width, height)
    figure.dpi = 72
    figure.draw(renderer)
    figure.dpi = dpi
    return Drawing(width, height, tuple(renderer.marks))


@dataclass(frozen=True)
class Stroke:
    """Colour, width in points, ends, joins and dashes of a line."""

    colour: Rgba
    width: float
    cap: int
    join: int
    dashes: tuple[list[float], float] | None

    @classmethod
    def of(cls, gc: GraphicsContextBase, width: float) -> "Stroke":
        """Read matplotlib's graphics context, which it uses again for what comes next."""
        red, green, blue, alpha = map(float, gc.get_rgb())
        offset, dashes = gc.get_dashes()
        dashed = None if dashes is None else (np.asarray(dashes, dtype=float).tolist(), float(offset or 0))
        cap, join = CAPS.get(str(gc.get_capstyle()), 0), JOINS.get(str(gc.get_joinstyle()), 0)
        return cls((red, green, blue, alpha), width, cap, join, dashed)

    def use_on(self, canvas: Canvas) -> None:
        """Set it for the lines that follow."""
        canvas.setStrokeColor(_colour(self.colour))
        canvas.setLineWidth(self.width)
        canvas.setLineCap(self.cap)
        canvas.setLineJoin(self.join)
        if self.dashes:
            canvas.setDash(*self.dashes)


class TracingRenderer(RendererBase):
    """A matplotlib renderer at 72 dots per inch that notes what is drawn."""

    def __init__(self, width: float, height: float) -> None:
        """``width`` × ``height`` is in points."""
        super().__init__()
        self.width, self.height = width, height
        self.marks: list[Mark] = []

    def flipy(self) -> bool:
        """The y axis points upwards, as in PDF."""
        return False

    def get_canvas_width_height(self) -> tuple[float, float]:
        """Size in points."""
        return self.width, self.height

    def points_to_pixels(self, points: Any) -> Any:
        """A point is a pixel."""
        return points

    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: Any) -> tuple[float, float, float]:
        """Measure in the fonts that will be printed."""
        size = prop.get_size_in_points()
        return text_width(visible(s, keep_lines=False), face_of(prop), size), size * 0.72, size * 0.2

    def draw_path(
        self,
        gc: GraphicsContextBase,
        path: Path,
        transform: Transform,
        rgbFace: Any = None,  # noqa: N803
    ) -> None:
        """Stroke and fill one path."""
        line = PDFPathObject()
        _follow(line, path, transform)
        width = float(gc.get_linewidth())
        stroke = Stroke.of(gc, width) if width > 0 and gc.get_rgb()[3] > 0 else None
        fill = None
        if rgbFace is not None and (len(rgbFace) < 4 or rgbFace[3] > 0):
            alpha = gc.get_alpha() if gc.get_forced_alpha() else (rgbFace[3] if len(rgbFace) > 3 else 1.0)
            red, green, blue = (float(part) for part in rgbFace[:3])
            fill = (red, green, blue, float(alpha))
        self.marks.append(partial(_draw_path, line=line, clip=_clip(gc), stroke=stroke, fill=fill))

    def draw_quad_mesh(
        self,
        gc: GraphicsContextBase,
        master_transform: Transform,
        mesh_width: int,
        mesh_height: int,
        coordinates: Any,
        offsets: Any,
        offset_trans: Transform,
        facecolors: Any,
        antialiased: bool,
        edgecolors: Any,
    ) -> None:
        """Fill the cells of an upright grid, joining neighbours of one colour: a hundred models have 10,000 cells."""
        corners = master_transform.transform(np.asarray(coordinates).reshape(-1, 2))
        grid = corners.reshape(mesh_height + 1, mesh_width + 1, 2)
        colours = np.asarray(facecolors).reshape(mesh_height, mesh_width, -1)
        width = float(gc.get_linewidth()) if len(edgecolors) else 0.0
        inset = width / 2
        cells: list[tuple[Box, Rgba]] = []
        for row in range(mesh_height):
            start = 0
            for column in range(mesh_width):
                more = column + 1 < mesh_width and not width
                if more and np.array_equal(colours[row, column + 1], colours[row, start]):
                    continue
                x0, y0 = map(float, grid[row, start])
                x1, y1 = map(float, grid[row + 1, column + 1])
                red, green, blue, alpha = map(float, colours[row, start])
                left, low = min(x0, x1) + inset, min(y0, y1) + inset
                if alpha > 0:
                    box = left, low, abs(x1 - x0) - width, abs(y1 - y0) - width
                    cells.append((box, (red, green, blue, alpha)))
                start = column + 1
        self.marks.append(partial(_fill_cells, cells=cells, clip=_clip(gc)))

    def draw_text(
        self,
        gc: GraphicsContextBase,
        x: float,
        y: float,
        s: str,
        prop: FontProperties,
        angle: float,
        ismath: Any = False,
        mtext: Any = None,
    ) -> None:
        """Print one line, turned by ``angle`` degrees."""
        red, green, blue = (round(255 * float(c)) for c in gc.get_rgb()[:3])
        self.marks.append(
            partial(
                _draw_text,
                at=(float(x), float(y), float(angle)),
                text=visible(s, keep_lines=False),
                face=face_of(prop),
                size=prop.get_size_in_points(),
                ink=f"#{red:02x}{green:02x}{blue:02x}",
            )
        )

    def draw_image(self, gc: GraphicsContextBase, x: float, y: float, im: Any, transform: Any = None) -> None:
        """Refuse pixels, because the plots consist of lines, areas and text."""
        raise NotImplementedError("plots of the report are drawn as vectors")


def _draw_path(
    canvas: Canvas, *, line: PDFPathObject, clip: Box | None, stroke: Stroke | None, fill: Rgba | None
) -> None:
    canvas.saveState()
    _clip_to(canvas, clip)
    if stroke:
        stroke.use_on(canvas)
    if fill:
        canvas.setFillColor(_colour(fill))
    canvas.drawPath(line, stroke=int(stroke is not None), fill=int(fill is not None))
    canvas.restoreState()


def _fill_cells(canvas: Canvas, *, cells: Sequence[tuple[Box, Rgba]], clip: Box | None) -> None:
    canvas.saveState()
    _clip_to(canvas, clip)
    for box, colour in cells:
        canvas.setFillColor(_colour(colour))
        canvas.rect(*box, stroke=0, fill=1)
    canvas.restoreState()


def _draw_text(canvas: Canvas, *, at: tuple[float, float, float], text: str, face: Face, size: float, ink: str) -> None:
    x, y, angle = at
    canvas.saveState()
    canvas.translate(x, y)
    canvas.rotate(angle)
    draw_line(canvas, 0, 0, text, face, size, ink)
    canvas.restoreState()


def _colour(rgba: Rgba) -> Color:
    red, green, blue, alpha = rgba
    return Color(red, green, blue, alpha=alpha)


def _clip(gc: GraphicsContextBase) -> Box | None:
    box = gc.get_clip_rectangle()
    if box is None:
        return None
    x, y, width, height = map(float, box.bounds)
    return x, y, width, height


def _clip_to(canvas: Canvas, box: Box | None) -> None:
    if box is not None:
        outline = canvas.beginPath()
        outline.rect(*box)
        canvas.clipPath(outline, stroke=0, fill=0)


def _follow(line: PDFPathObject, path: Path, transform: Transform) -> None:
    last = (0.0, 0.0)
    for points, code in path.iter_segments(transform, simplify=False):
        p = [float(value) for value in points]
        if code == Path.MOVETO:
            line.moveTo(*p)
        elif code == Path.LINETO:
            line.lineTo(*p)
        elif code == Path.CURVE3:
            (x0, y0), (cx, cy, x, y) = last, p
            line.curveTo(
                x0 + 2 / 3 * (cx - x0),
                y0 + 2 / 3 * (cy - y0),
                x + 2 / 3 * (cx - x),
                y + 2 / 3 * (cy - y),
                x,
                y,
            )
        elif code == Path.CURVE4:
            line.curveTo(*p)
        elif code == Path.CLOSEPOLY:
            line.close()
        if code != Path.CLOSEPOLY:
            last = (p[-2], p[-1])


class Plot(Flowable):  # type: ignore[misc]
    """A figure in the text, scaled down only if it is wider than the frame."""

    def __init__(self, drawing: Drawing) -> None:
        """Take a traced figure."""
        super().__init__()
        self.drawing = drawing
        self.natural = (drawing.width, drawing.height)
        self.scale = 1.0

    def fit(self, width: float) -> float:
        """Scale down to ``width`` points if it is wider, and return the scale."""
        self.scale = min(1.0, width / self.natural[0])
        return self.scale

    def wrap(self, width: float, height: float) -> tuple[float, float]:
        self.fit(width)
        return self.natural[0] * self.scale, self.natural[1] * self.scale

    def draw(self) -> None:
        """Draw the figure at its place on the page."""
        self.drawing.draw_on(self.canv, self.scale)
