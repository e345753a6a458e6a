"""The document: blocks, page frames, bookmarks, linked contents. Equal input gives equal bytes."""

import io
from collections.abc import Callable, Mapping, Sequence
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

from llmjobs.report.blocks import AnsweredQuestion, Block, Figure, Finding, Heading, Prose, Questions, Table
from llmjobs.report.figure_style import BLUE, ORANGE
from llmjobs.report.pdf import styles
from llmjobs.report.pdf.tables import table_flowables
from llmjobs.report.pdf.text_flowable import Span, Text
from llmjobs.report.pdf.vector import Drawing, Plot
from llmjobs.report.text.fonts import register_fonts
from llmjobs.report.text.shaping import draw_line, letters_of, text_width
from llmjobs.report.text.visible import visible

# From blocks to reportlab's flowables.

Figures = Mapping[str, Drawing]
MOST_LINES = 8
"""Maximum number of lines of a finding on the first page, however long its names are."""


def flowables(blocks: Sequence[Block], figures: Figures) -> list[Flowable]:
    """Return the flowables of a section's blocks; ``figures`` contains the drawn plots by name."""
    makers: dict[type, Callable[..., list[Flowable]]] = {
        Prose: _prose,
        Heading: _heading,
        Table: table_flowables,
        Figure: lambda block: _figure(block, figures),
        Questions: lambda block: [flowable for item in block.items for flowable in _question(item)],
    }
    story: list[Flowable] = []
    waiting: list[Flowable] = []
    for block in blocks:
        made = makers[type(block)](block)
        if isinstance(block, Heading):
            story, waiting = [*story, *waiting], made
        elif isinstance(block, Figure):
            story.append(Together([*waiting, *made]))
            waiting = []
        else:
            room = 150 if isinstance(block, Table) else 90
            story += [*([CondPageBreak(room)] if waiting else []), *waiting, *made]
            waiting = []
    return [*story, *waiting]


def _heading(block: Heading) -> list[Flowable]:
    return [Text(block.text, styles.HEADING)]


def _prose(block: Prose) -> list[Flowable]:
    style = {"text": styles.BODY, "note": styles.NOTE, "alarm": styles.ALARM}[block.kind]
    lead = [Span(f"{block.lead} ", "bold")] if block.lead else []
    return [Text([*lead, Span(block.text)], style, bar=ORANGE if block.kind == "alarm" else "")]


def _figure(block: Figure, figures: Figures) -> list[Flowable]:
    return [Plot(figures[block.name]), Text(block.caption, styles.CAPTION)]


class Together(Flowable):  # type: ignore[misc]
    """A heading, a plot and its caption on one page; the plot shrinks a little rather than leave a page half empty."""

    LEAST = 0.68

    def __init__(self, parts: Sequence[Flowable]) -> None:
        """``parts`` are ordered from top to bottom; one of them is the plot."""
        super().__init__()
        self.parts = parts
        self.plot = next(part for part in parts if isinstance(part, Plot))
        self.spaceBefore, self.spaceAfter = parts[0].getSpaceBefore(), parts[-1].getSpaceAfter()

    def wrap(self, width: float, height: float) -> tuple[float, float]:
        """Find the plot's scale: 1, or less if that keeps it on this page or no page is large enough."""
        rest = sum(part.wrap(width, height)[1] for part in self.parts if part is not self.plot)
        rest += sum(self._gaps())
        wanted = self.plot.fit(width)
        scale = (height - rest) / self.plot.natural[1]
        whole_page = height >= styles.FRAME_HEIGHT - 1
        if scale < wanted and (scale >= self.LEAST * wanted or whole_page):
            self.plot.scale = scale
        self.width, self.height = width, rest + self.plot.natural[1] * self.plot.scale
        return self.width, self.height

    def _gaps(self) -> list[float]:
        pairs = zip(self.parts, self.parts[1:], strict=False)
        return [max(above.getSpaceAfter(), below.getSpaceBefore()) for above, below in pairs]

    def draw(self) -> None:
        """Draw the parts one below the other."""
        y = self.height
        for part, gap in zip(self.parts, [*self._gaps(), 0.0], strict=True):
            high = self.plot.natural[1] * self.plot.scale if part is self.plot else part.height
            part.drawOn(self.canv, 0, y - high)
            y -= high + gap


def _question(item: AnsweredQuestion) -> list[Flowable]:
    note = [Span(" · "), Span(item.note, "italic")] if item.note else []
    parts: list[Flowable] = [
        CondPageBreak(76),
        Text([Span(item.where, "bold"), *note], styles.NOTE),
        Text(item.text.strip(), styles.QUESTION, auto=True),
        Spacer(0, 2),
    ]
    labels = [f"{letter}." if len(letter) == 1 else letter for letter, _, _ in item.options]
    widest = max((text_width(label, "bold", styles.OPTION_SIZE) for label in labels), default=0.0)
    for label, (letter, text, chosen) in zip(labels, item.options, strict=True):
        style = styles.option(letter == item.gold, widest)
        parts.append(Text(f"{text}   ← {chosen}" if chosen else text, style, label=label, auto=True))
    return [*parts, Spacer(0, 9)]


def finding_rows(findings: Sequence[Finding]) -> list[tuple[Text, Text]]:
    """Return number and sentence of each finding for the first page."""
    rows = []
    for finding in findings:
        style = styles.number(14 if len(finding.number) <= 8 else 11.5)
        ink = "#a8620a" if finding.alarm else BLUE
        number = Text([Span(finding.number, "bold", ink)], style, most_lines=2)
        rows.append((number, Text(finding.sentence, styles.FINDING, most_lines=MOST_LINES)))
    return rows


@dataclass(frozen=True)
class Chapter:
    """A section to be laid out."""

    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class FrontPage:
    """The content of the first page, and the document's title."""

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
    """Pages with a running header, and a footer with the page and the number of pages."""

    def __init__(self, data: io.BytesIO, title: str) -> None:
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
        """Record headings for contents and bookmarks."""
        if isinstance(flowable, Section):
            self.heading = flowable.title
            key = f"section-{flowable.key}"
            self.canv.bookmarkPage(key)
            self.canv.addOutlineEntry(visible(flowable.title), key, 0, closed=False)
            self.notify("TOCEntry", (0, escape(visible(flowable.title)), self.page, key))

    def handle_documentBegin(self) -> None:  # noqa: N802
        """Start a pass, with the page count of the previous one."""
        self.pages = getattr(self, "page", 0)
        self.heading = ""
        super().handle_documentBegin()


def _header(canvas: Canvas, x: float, y: float, title: str, right: float) -> None:
    shown = title
    while text_width(shown, "regular", 8) > right - x and len(shown) > 8:
        shown = "".join(letters_of(shown)[:-9]).rstrip() + " …"
    draw_line(canvas, x, y, shown, "regular", 8, styles.MUTED_INK.hexval().replace("0x", "#"))


class Section(Text):
    """A chapter's heading, which appears in contents and bookmarks."""

    def __init__(self, title: str, key: str) -> None:
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
