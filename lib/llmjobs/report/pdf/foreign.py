"""A flowable for text from data sets and models: any script, any length, breaks over pages."""

import re
from collections.abc import Sequence

from reportlab.lib.colors import HexColor
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable

from llmjobs.report.text.arabic import join_letters
from llmjobs.report.text.direction import is_right_to_left, printed_order
from llmjobs.report.text.fonts import Face, run_width, split_runs, text_width
from llmjobs.report.text.visible import visible

EAST_ASIAN = r"\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef"
CLOSING = r"\u3001\u3002\u3009\u300b\u300d\u300f\u3011\uff01\uff09\uff0c\uff0e\uff1a\uff1b\uff1f"
PIECES = re.compile(rf"\s+|[{EAST_ASIAN}][{CLOSING}]*|[^\s{EAST_ASIAN}]+[{CLOSING}]*")
"""Where a line may break: at blanks and around East Asian characters, but not before their closing marks."""


class ForeignText(Flowable):  # type: ignore[misc]
    """Lines of text with an optional hanging label before the first ("A."), cut at the frame's width."""

    def __init__(
        self,
        text: str,
        *,
        size: float = 9,
        face: Face = "regular",
        ink: str = "#1f2328",
        label: str = "",
        indent: float = 0,
    ) -> None:
        """Keep the text; ``indent`` is where the text starts, right of ``label``, in points."""
        super().__init__()
        self.text, self.size, self.face, self.ink = text, size, face, ink
        self.label, self.indent = label, indent
        self.leading = size * 1.32
        self.lines: list[tuple[str, bool]] = []

    def wrap(self, width: float, height: float) -> tuple[float, float]:
        """Break into lines for ``width`` points."""
        if not self.lines or getattr(self, "width", None) != width:
            self.lines = self._break(width - self.indent)
        self.width, self.height = width, self.leading * len(self.lines)
        return width, self.height

    def _break(self, width: float) -> list[tuple[str, bool]]:
        lines: list[tuple[str, bool]] = []
        for paragraph in visible(self.text).split("\n"):
            right = is_right_to_left(paragraph)
            lines += [(line, right) for line in wrap_line(join_letters(paragraph), self.face, self.size, width)]
        return lines

    def split(self, width: float, height: float) -> list[Flowable]:
        """Cut where the page ends, at least two lines on each side."""
        self.wrap(width, height)
        room = int(height // self.leading)
        if room >= len(self.lines):
            return [self]
        if room < 2:
            return []
        room = min(room, len(self.lines) - 2) if len(self.lines) > 3 else room
        return [self._part(self.lines[:room], self.label), self._part(self.lines[room:], "")]

    def _part(self, lines: Sequence[tuple[str, bool]], label: str) -> "ForeignText":
        part = ForeignText("", size=self.size, face=self.face, ink=self.ink, label=label, indent=self.indent)
        part.lines, part.width = list(lines), self.width
        return part

    def draw(self) -> None:
        """Print the lines on the canvas."""
        canvas: Canvas = self.canv
        y = self.height - self.size
        if self.label:
            draw_line(canvas, 0, y, self.label, "bold" if self.face == "bold" else "regular", self.size, self.ink)
        for line, right in self.lines:
            shown = printed_order(line, right)
            x = self.width - text_width(shown, self.face, self.size) if right else self.indent
            draw_line(canvas, x, y, shown, self.face, self.size, self.ink)
            y -= self.leading


def wrap_line(text: str, face: Face, size: float, width: float) -> list[str]:
    """Break one paragraph into lines of ``width`` points at most; a word that is too long is cut."""
    lines, line, used = [], "", 0.0
    for piece in PIECES.findall(text):
        wide = text_width(piece, face, size)
        if used + wide <= width or (piece.isspace() and line):
            line, used = line + piece, used + wide
            continue
        if line.strip():
            lines.append(line.rstrip())
        line, used = ("", 0.0) if piece.isspace() else (piece, wide)
        while used > width and len(line) > 1:
            head = _fitting(line, face, size, width)
            lines.append(line[:head])
            line = line[head:]
            used = text_width(line, face, size)
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def _fitting(word: str, face: Face, size: float, width: float) -> int:
    used = 0.0
    for place, character in enumerate(word):
        used += text_width(character, face, size)
        if used > width:
            return max(place, 1)
    return len(word)


def draw_line(canvas: Canvas, x: float, y: float, text: str, face: Face, size: float, ink: str) -> float:
    """Print one line that is in printed order already, font by font; return where it ends."""
    for run in split_runs(text, face):
        wide = run_width(run, size)
        if run.boxed:
            canvas.saveState()
            canvas.setLineWidth(0.4)
            canvas.setStrokeColor(HexColor("#8a929b"))
            canvas.setFillColor(HexColor("#5b646e"))
            canvas.rect(x + size * 0.08, y - size * 0.18, wide - size * 0.16, size * 0.86)
            canvas.setFont(run.font, size * 0.62)
            canvas.drawString(x + size * 0.2, y, run.text)
            canvas.restoreState()
        else:
            canvas.setFillColor(HexColor(ink))
            canvas.setFont(run.font, size)
            canvas.drawString(x, y, run.text)
        x += wide
    return x
