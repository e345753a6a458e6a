"""Blocks to flowables."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure as MatplotlibFigure
from reportlab.platypus import CondPageBreak, Flowable, Spacer

from llmjobs.report.blocks import (
    AnsweredQuestion,
    Block,
    Figure,
    Finding,
    Heading,
    Prose,
    Questions,
    Table,
)
from llmjobs.report.figures.style import BLUE, ORANGE
from llmjobs.report.pdf import styles
from llmjobs.report.pdf.tables import table_flowables
from llmjobs.report.pdf.text import Span, Text
from llmjobs.report.pdf.vector import Plot
from llmjobs.report.text.shaping import text_width

Figures = Mapping[str, MatplotlibFigure]
MOST_LINES = 8
"""Lines of a finding on the first page, however long the names in it."""


def flowables(blocks: Sequence[Block], figures: Figures) -> list[Flowable]:
    """Return the flowables of a section's blocks; ``figures`` holds the drawn plots by name."""
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
    """A heading, a plot and its caption on one page; the plot shrinks a little before it leaves a page half empty."""

    LEAST = 0.68

    def __init__(self, parts: Sequence[Flowable]) -> None:
        """Take the parts from top to bottom; one of them is the plot."""
        super().__init__()
        self.parts = parts
        self.plot = next(part for part in parts if isinstance(part, Plot))
        self.spaceBefore, self.spaceAfter = parts[0].getSpaceBefore(), parts[-1].getSpaceAfter()

    def wrap(self, width: float, height: float) -> tuple[float, float]:
        """Find the plot's scale: its own, or less where that keeps it on this page or no page could hold it."""
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
