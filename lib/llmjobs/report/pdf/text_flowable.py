"""A flowable for text in any script and of any length: broken into lines, aligned, split between pages."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable

from llmjobs.report.text.fonts import Face
from llmjobs.report.text.shaping import draw_line, is_right_to_left, letters_of, text_width
from llmjobs.report.text.visible import visible

EAST_ASIAN = r"\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef"
CLOSING = r"\u3001\u3002\u3009\u300b\u300d\u300f\u3011\uff01\uff09\uff0c\uff0e\uff1a\uff1b\uff1f"
PIECES = re.compile(
    rf"\s+|[{EAST_ASIAN}][{CLOSING}]*|[^\s{EAST_ASIAN}]+?(?<=\w)[-/_](?=\w)|[^\s{EAST_ASIAN}]+[{CLOSING}]*"
)
"""Places where a line may break: at blanks, after separators in a name, around East Asian characters, but not before
their closing marks.
"""
FACES: dict[str, Face] = {"Text": "regular", "Text-Bold": "bold", "Text-Italic": "italic"}
ORPHANS = 2
"""Minimum number of lines on each side of a page break."""


class Span(NamedTuple):
    """Text in one font and colour."""

    text: str
    face: Face = "regular"
    ink: str = ""


class Line(NamedTuple):
    """The content of one line; ``right``: its paragraph reads from right to left."""

    spans: tuple[Span, ...]
    width: float
    right: bool


class Text(Flowable):  # type: ignore[misc]
    """Paragraphs in a style, with a hanging label ("A."), a bar at the left, or a limit to their lines.

    ``auto``: a paragraph that starts in Arabic or Hebrew is right-aligned; otherwise all lines follow the style.
    """

    def __init__(
        self,
        spans: str | Sequence[Span],
        style: ParagraphStyle,
        *,
        label: str = "",
        bar: str = "",
        auto: bool = False,
        most_lines: int = 0,
    ) -> None:
        super().__init__()
        face = FACES[style.fontName]
        given = [Span(spans, face)] if isinstance(spans, str) else spans
        self.spans = [span._replace(text=visible(span.text, keep_lines=auto)) for span in given if span.text]
        self.style, self.face, self.label, self.bar, self.auto = style, face, label, bar, auto
        self.most_lines = most_lines
        self.spaceBefore, self.spaceAfter = style.spaceBefore, style.spaceAfter
        self.ink = "#" + style.textColor.hexval()[2:]
        self.lines: list[Line] = []
        self.broken_for = 0.0

    def wrap(self, width: float, height: float) -> tuple[float, float]:
        """Break into lines for ``width`` points."""
        if not self.lines or self.broken_for != width:
            self.lines = self._limited(self._break(width - self.style.leftIndent), width - self.style.leftIndent)
            self.broken_for = width
        self.width, self.height = width, self.style.leading * max(len(self.lines), 1)
        return width, self.height

    def _break(self, width: float) -> list[Line]:
        lines: list[Line] = []
        for paragraph in _paragraphs(self.spans):
            right = self.auto and is_right_to_left("".join(span.text for span in paragraph))
            lines += [Line(spans, wide, right) for spans, wide in break_spans(paragraph, self.style.fontSize, width)]
        return lines

    def _limited(self, lines: list[Line], width: float) -> list[Line]:
        if not self.most_lines or len(lines) <= self.most_lines:
            return lines
        *kept, last = lines[: self.most_lines]
        cut = f"{''.join(span.text for span in last.spans).rstrip()} …"
        (spans, wide), *_ = break_spans([Span(cut, self.face)], self.style.fontSize, width)
        if len(_):
            letters = letters_of(cut)
            shorter = Span("".join(letters[: max(len(letters) - 4, 0)]) + "…", self.face)
            spans, wide = (shorter,), text_width(shorter.text, self.face, self.style.fontSize)
        return [*kept, Line(spans, wide, last.right)]

    def split(self, width: float, height: float) -> list[Flowable]:
        """Split at the end of the page."""
        self.wrap(width, height)
        room = int(height // self.style.leading)
        if room >= len(self.lines):
            return [self]
        if room < ORPHANS:
            return []
        room = min(room, len(self.lines) - ORPHANS) if len(self.lines) > ORPHANS + 1 else room
        return [self._part(self.lines[:room], self.label), self._part(self.lines[room:], "")]

    def _part(self, lines: Sequence[Line], label: str) -> "Text":
        part = Text("", self.style, label=label, bar=self.bar, auto=self.auto)
        part.lines, part.broken_for = list(lines), self.broken_for
        return part

    def minWidth(self) -> float:  # noqa: N802
        """Any width is possible, because words that are too long are cut."""
        return 1.0

    def draw(self) -> None:
        """Draw the lines on the canvas."""
        canvas: Canvas = self.canv
        style = self.style
        y = self.height - style.fontSize
        if self.bar:
            canvas.saveState()
            canvas.setFillColor(self.bar)
            canvas.rect(0, -style.fontSize * 0.1, 2.2, self.height, stroke=0, fill=1)
            canvas.restoreState()
        if self.label:
            draw_line(canvas, 0, y, self.label, self.face, style.fontSize, self.ink)
        for line in self.lines:
            free = self.width - style.leftIndent - line.width
            x = style.leftIndent + (free if line.right or style.alignment == 2 else free / 2 * (style.alignment == 1))
            for span in reversed(line.spans) if line.right else line.spans:
                x = draw_line(canvas, x, y, span.text, span.face, style.fontSize, span.ink or self.ink, line.right)
            y -= style.leading


def _paragraphs(spans: Sequence[Span]) -> list[list[Span]]:
    """Split at line breaks."""
    paragraphs: list[list[Span]] = [[]]
    for span in spans:
        first, *more = span.text.split("\n")
        paragraphs[-1].append(span._replace(text=first))
        paragraphs += [[span._replace(text=text)] for text in more]
    return paragraphs


def break_spans(spans: Sequence[Span], size: float, width: float) -> list[tuple[tuple[Span, ...], float]]:
    """Break one paragraph into lines of at most ``width`` points, each with its width; overlong words are cut."""
    if len(spans) == 1 and (whole := text_width(spans[0].text, spans[0].face, size)) <= width:
        return [(tuple(spans), whole)]
    lines: list[list[Span]] = [[]]
    used = 0.0
    for span in spans:
        for piece in PIECES.findall(span.text):
            wide = text_width(piece, span.face, size)
            if used + wide > width and not (piece.isspace() and lines[-1]):
                if lines[-1]:
                    lines.append([])
                    used = 0.0
                if piece.isspace():
                    continue
                while wide > width and len(letters := letters_of(piece)) > 1:
                    head = _fitting(letters, span.face, size, width)
                    lines[-1].append(span._replace(text="".join(letters[:head])))
                    lines.append([])
                    piece = "".join(letters[head:])
                    wide = text_width(piece, span.face, size)
            lines[-1].append(span._replace(text=piece))
            used += wide
    merged = [_merged(line) for line in lines if line] or [()]
    return [(line, sum(text_width(span.text, span.face, size) for span in line)) for line in merged]


def _fitting(letters: Sequence[str], face: Face, size: float, width: float) -> int:
    used = 0.0
    for place, letter in enumerate(letters):
        used += text_width(letter, face, size)
        if used > width:
            return max(place, 1)
    return len(letters)


def _merged(line: Sequence[Span]) -> tuple[Span, ...]:
    """Join neighbours of the same style, so that they are shaped together; drop blanks at the end."""
    merged: list[Span] = []
    for span in line:
        if merged and merged[-1][1:] == span[1:]:
            merged[-1] = span._replace(text=merged[-1].text + span.text)
        else:
            merged.append(span)
    while merged and not merged[-1].text.rstrip():
        merged.pop()
    if merged:
        merged[-1] = merged[-1]._replace(text=merged[-1].text.rstrip())
    return tuple(merged)
