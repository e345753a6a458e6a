"""The document: page frames, header and footer, bookmarks, contents with links, fixed bytes."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from reportlab import rl_config
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    CondPageBreak,
    Flowable,
    Frame,
    PageTemplate,
    Spacer,
    TableStyle,
)
from reportlab.platypus import Table as Grid
from reportlab.platypus.tableofcontents import TableOfContents

from llmjobs.report.blocks import Block, Finding, Prose
from llmjobs.report.pdf import styles
from llmjobs.report.pdf.flow import Figures, finding_rows, flowables
from llmjobs.report.pdf.text import Text
from llmjobs.report.text.fonts import register_fonts
from llmjobs.report.text.shaping import draw_line, letters_of, text_width
from llmjobs.report.text.visible import visible


@dataclass(frozen=True)
class Chapter:
    """A section on its way to paper."""

    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class FrontPage:
    """What stands on the first page, and the document's own title."""

    title: str
    subtitle: Sequence[str]
    findings: Sequence[Finding]
    blocks: Sequence[Block]
    warning: str = ""


def make_pdf(front: FrontPage, chapters: Sequence[Chapter], figures: Figures) -> bytes:
    """Make the document; the same input gives the same bytes."""
    rl_config.invariant = 1
    register_fonts()
    data = io.BytesIO()
    document = Document(data, front.title)
    story: list[Flowable] = [*_front(front, figures), *_contents(len(chapters))]
    for chapter in chapters:
        story += [
            CondPageBreak(150),
            Section(chapter.title, chapter.key),
            *flowables(chapter.blocks, figures),
        ]
    document.multiBuild(story, canvasmaker=_canvas)
    return data.getvalue()


def _canvas(*arguments: Any, **options: Any) -> Canvas:
    options |= {"invariant": 1, "initialFontName": "Text"}
    return Canvas(*arguments, **options)


class Document(BaseDocTemplate):  # type: ignore[misc]
    """Pages with a running header, and a footer with the page of all pages."""

    def __init__(self, data: io.BytesIO, title: str) -> None:
        """Prepare the frames."""
        super().__init__(
            data,
            pagesize=styles.PAGE,
            title=visible(title, keep_lines=False),
            author="llmjobs",
            subject="Accuracy, cost and shared mistakes of language models",
            creator="llmjobs report",
            lang="en",
        )
        self.running, self.pages, self.heading = visible(title, keep_lines=False), 0, ""
        height = styles.FRAME_HEIGHT
        frame = Frame(styles.LEFT, styles.BOTTOM, styles.WIDTH, height, 0, 0, 0, 0)
        self.addPageTemplates(PageTemplate("page", [frame], onPageEnd=self._finish))

    def _finish(self, canvas: Canvas, document: "Document") -> None:
        canvas.saveState()
        canvas.setFillColor(styles.MUTED_INK)
        canvas.setStrokeColor(styles.RULE_INK)
        canvas.setLineWidth(0.5)
        right = styles.PAGE[0] - styles.RIGHT
        if self.page > 1:
            y = styles.PAGE[1] - 16 * 2.83
            _header(canvas, styles.LEFT, y, self.running, right)
            canvas.line(styles.LEFT, y - 5, right, y - 5)
        canvas.setFont("Text", 8)
        total = f" of {self.pages}" if self.pages else ""
        canvas.drawRightString(right, 12 * 2.83, f"{self.page}{total}")
        canvas.drawString(styles.LEFT, 12 * 2.83, "Made from recorded answers by llmjobs report")
        canvas.restoreState()

    def afterFlowable(self, flowable: Flowable) -> None:  # noqa: N802
        """Note headings for contents and bookmarks."""
        if isinstance(flowable, Section):
            self.heading = flowable.title
            key = f"section-{flowable.key}"
            self.canv.bookmarkPage(key)
            self.canv.addOutlineEntry(visible(flowable.title), key, 0, closed=False)
            self.notify("TOCEntry", (0, escape(visible(flowable.title)), self.page, key))

    def handle_documentBegin(self) -> None:  # noqa: N802
        """Start a pass; the page count of the pass before is known."""
        self.pages = getattr(self, "page", 0)
        self.heading = ""
        super().handle_documentBegin()


def _header(canvas: Canvas, x: float, y: float, title: str, right: float) -> None:
    shown = title
    while text_width(shown, "regular", 8) > right - x and len(shown) > 8:
        shown = "".join(letters_of(shown)[:-9]).rstrip() + " …"
    draw_line(canvas, x, y, shown, "regular", 8, styles.MUTED_INK.hexval().replace("0x", "#"))


class Section(Text):
    """A chapter's heading, known to contents and bookmarks."""

    def __init__(self, title: str, key: str) -> None:
        """Keep title and key."""
        super().__init__(title, styles.SECTION)
        self.title, self.key = title, key


def _front(front: FrontPage, figures: Figures) -> list[Flowable]:
    story: list[Flowable] = [Text(front.title, styles.TITLE, most_lines=3)]
    story += [Text(line, styles.SUBTITLE, most_lines=4) for line in front.subtitle]
    story.append(Spacer(0, 10))
    if front.warning:
        story += flowables([Prose(front.warning, kind="alarm")], figures)
    rows = finding_rows(front.findings)
    if rows:
        numbers = max(text_width(f.number, "bold", 14 if len(f.number) <= 8 else 11.5) for f in front.findings)
        first = min(max(numbers + 14, 62), 120)
        grid = Grid(rows, colWidths=[first, styles.WIDTH - first], hAlign="LEFT")
        grid.setStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("FONTNAME", (0, 0), (-1, -1), "Text"),
                ("LINEABOVE", (0, 0), (-1, 0), 0.8, styles.TEXT_INK),
                ("LINEBELOW", (0, 0), (-1, -1), 0.25, styles.RULE_INK),
                ("LEFTPADDING", (0, 0), (0, -1), 0),
                ("RIGHTPADDING", (0, 0), (0, -1), 12),
                ("LEFTPADDING", (1, 0), (1, -1), 0),
                ("RIGHTPADDING", (1, 0), (1, -1), 0),
                ("TOPPADDING", (0, 0), (0, -1), 4),
                ("TOPPADDING", (1, 0), (1, -1), 5.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 6),
            ]
        )
        story.append(grid)
    return [*story, Spacer(0, 10), *flowables(front.blocks, figures)]


def _contents(lines: int) -> list[Flowable]:
    contents = TableOfContents(dotsMinLevel=-1)
    contents.levelStyles = [styles.CONTENTS]
    contents.tableStyle = TableStyle(
        [
            ("FONTNAME", (0, 0), (-1, -1), "Text"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("RIGHTPADDING", (0, 0), (-1, -1), 0),
            ("TOPPADDING", (0, 0), (-1, -1), 0),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 0),
        ]
    )
    room = CondPageBreak(30 + lines * styles.CONTENTS.leading)
    return [room, Text("Contents", styles.HEADING), contents]
