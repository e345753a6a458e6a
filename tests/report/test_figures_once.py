"""A figure is laid out and traced once: the report's pages and the figure's own files show the same."""

import io
from collections import Counter
from pathlib import Path

import pytest
from matplotlib.figure import Figure as Plot
from reportlab.pdfgen.canvas import Canvas
from run_folders import FakeRun

from llmjobs.make_report import make_report
from llmjobs.report import figure_style
from llmjobs.report.pdf.vector import trace


def page_of(drawing) -> bytes:
    data = io.BytesIO()
    canvas = Canvas(data, invariant=1, pageCompression=0)
    drawing.draw_on(canvas)
    canvas.save()
    return data.getvalue()


def test_a_drawing_is_the_same_on_every_canvas_whatever_the_style_is_then() -> None:
    with figure_style.styled():
        plot = figure_style.blank(2.0)
        axes = plot.subplots()
        axes.bar(range(4), [42, 40, 28, 10])
        axes.pcolormesh([[0.0, 1.0], [0.5, 0.2]])
        axes.annotate("نموذج 7B", (1, 20))
        figure_style.lay_out(plot)
        plot.set_layout_engine("none")
        drawing, dpi = trace(plot), plot.dpi
        first = page_of(drawing)
    assert page_of(drawing) == first and first.count(b" re") > 3
    assert plot.dpi == dpi != 72


def test_no_figure_of_a_report_is_drawn_more_than_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once as pixels, once as lines, however many passes the document takes."""
    drawn, real = Counter[int](), Plot.draw

    def draw(self: Plot, renderer: object) -> None:
        drawn[id(self)] += 1
        kept.append(self)
        real(self, renderer)

    kept: list[Plot] = []
    monkeypatch.setattr(Plot, "draw", draw)
    made = make_report([FakeRun(questions=10).write(tmp_path / "run")], tmp_path / "out" / "report.pdf")
    assert len([one for one in made.files if one.suffix == ".png"]) == len(drawn) > 5
    assert set(drawn.values()) == {2}
