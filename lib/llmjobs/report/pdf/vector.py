"""Draws a matplotlib figure on a reportlab canvas: vectors, and text in the document's own fonts."""

from typing import Any

import numpy as np
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.transforms import Transform
from reportlab.lib.colors import Color
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable

from llmjobs.report.text.lettering import face_of
from llmjobs.report.text.shaping import draw_line, text_width
from llmjobs.report.text.visible import visible

CAPS = {"butt": 0, "round": 1, "projecting": 2}
JOINS = {"miter": 0, "round": 1, "bevel": 2}


class CanvasRenderer(RendererBase):
    """A matplotlib renderer at 72 dots per inch that draws on a reportlab canvas."""

    def __init__(self, canvas: Canvas, width: float, height: float) -> None:
        """Draw on ``canvas``, ``width`` × ``height`` points from its origin."""
        super().__init__()
        self.canvas, self.width, self.height = canvas, width, height

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
        self.canvas.saveState()
        self._clip(gc)
        line = self.canvas.beginPath()
        _trace(line, path, transform)
        width = float(gc.get_linewidth())
        stroke = width > 0 and gc.get_rgb()[3] > 0
        if stroke:
            self._stroke(gc, width)
        fill = rgbFace is not None and (len(rgbFace) < 4 or rgbFace[3] > 0)
        if fill:
            alpha = gc.get_alpha() if gc.get_forced_alpha() else (rgbFace[3] if len(rgbFace) > 3 else 1.0)
            red, green, blue = (float(part) for part in rgbFace[:3])
            self.canvas.setFillColor(Color(red, green, blue, alpha=float(alpha)))
        self.canvas.drawPath(line, stroke=int(stroke), fill=int(fill))
        self.canvas.restoreState()

    def _stroke(self, gc: GraphicsContextBase, width: float) -> None:
        red, green, blue, alpha = map(float, gc.get_rgb())
        self.canvas.setStrokeColor(Color(red, green, blue, alpha=alpha))
        self.canvas.setLineWidth(width)
        self.canvas.setLineCap(CAPS.get(str(gc.get_capstyle()), 0))
        self.canvas.setLineJoin(JOINS.get(str(gc.get_joinstyle()), 0))
        offset, dashes = gc.get_dashes()
        if dashes is not None:
            self.canvas.setDash(np.asarray(dashes, dtype=float).tolist(), float(offset or 0))

    def _clip(self, gc: GraphicsContextBase) -> None:
        box = gc.get_clip_rectangle()
        if box is not None:
            outline = self.canvas.beginPath()
            outline.rect(*map(float, box.bounds))
            self.canvas.clipPath(outline, stroke=0, fill=0)

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
        self.canvas.saveState()
        self._clip(gc)
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
                    self.canvas.setFillColor(Color(red, green, blue, alpha=alpha))
                    self.canvas.rect(left, low, abs(x1 - x0) - width, abs(y1 - y0) - width, stroke=0, fill=1)
                start = column + 1
        self.canvas.restoreState()

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
        self.canvas.saveState()
        self.canvas.translate(float(x), float(y))
        self.canvas.rotate(float(angle))
        draw_line(
            self.canvas,
            0,
            0,
            visible(s, keep_lines=False),
            face_of(prop),
            prop.get_size_in_points(),
            f"#{red:02x}{green:02x}{blue:02x}",
        )
        self.canvas.restoreState()

    def draw_image(self, gc: GraphicsContextBase, x: float, y: float, im: Any, transform: Any = None) -> None:
        """Refuse pixels, because the plots consist of lines, areas and text."""
        raise NotImplementedError("plots of the report are drawn as vectors")


def _trace(line: Any, path: Path, transform: Transform) -> None:
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

    def __init__(self, figure: Figure) -> None:
        """``figure`` must already have its layout."""
        super().__init__()
        self.figure = figure
        width, height = figure.get_size_inches()
        self.natural = (float(width) * 72, float(height) * 72)
        self.scale = 1.0

    def fit(self, width: float) -> float:
        """Scale down to ``width`` points if it is wider, and return the scale."""
        self.scale = min(1.0, width / self.natural[0])
        return self.scale

    def wrap(self, width: float, height: float) -> tuple[float, float]:
        self.fit(width)
        return self.natural[0] * self.scale, self.natural[1] * self.scale

    def draw(self) -> None:
        draw_on(self.canv, self.figure, self.scale)


def draw_on(canvas: Canvas, figure: Figure, scale: float) -> None:
    """Draw a figure from the canvas' origin at 72 dots per inch, then restore its resolution."""
    width, height = (float(side) * 72 for side in figure.get_size_inches())
    dpi = figure.dpi
    canvas.saveState()
    canvas.scale(scale, scale)
    figure.dpi = 72
    figure.draw(CanvasRenderer(canvas, width, height))
    figure.dpi = dpi
    canvas.restoreState()
