"""Blocks to flowables."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure as MatplotlibFigure
from reportlab.platypus import CondPageBreak, Flowable, KeepTogether, Paragraph, Spacer

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
from llmjobs.report.pdf import styles
from llmjobs.report.pdf.foreign import ForeignText
from llmjobs.report.pdf.tables import table_flowables
from llmjobs.report.pdf.vector import Plot
from llmjobs.report.text.fonts import Face
from llmjobs.report.text.markup import markup

Figures = Mapping[str, MatplotlibFigure]


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
            story.append(KeepTogether([*waiting, *made]))
            waiting = []
        else:
            room = 150 if isinstance(block, Table) else 90
            story += [*([CondPageBreak(room)] if waiting else []), *waiting, *made]
            waiting = []
    return [*story, *waiting]


def _heading(block: Heading) -> list[Flowable]:
    return [Paragraph(markup(block.text, "bold"), styles.HEADING)]


def _prose(block: Prose) -> list[Flowable]:
    lead = f'<font name="Text-Bold">{markup(block.lead, "bold")}</font> ' if block.lead else ""
    style = {"text": styles.BODY, "note": styles.NOTE, "alarm": styles.ALARM}[block.kind]
    paragraph = Paragraph(lead + markup(block.text), style)
    return [Alarm(paragraph)] if block.kind == "alarm" else [paragraph]


class Alarm(Flowable):  # type: ignore[misc]
    """A paragraph with a bar at its left."""

    def __init__(self, paragraph: Paragraph) -> None:
        """Take the paragraph to mark."""
        super().__init__()
        self.paragraph = paragraph

    def wrap(self, width: float, height: float) -> tuple[float, float]:
        """As large as the paragraph, and some air."""
        self.width, self.height = self.paragraph.wrap(width, height)
        return self.width, self.height + 6

    def draw(self) -> None:
        """Draw bar and paragraph."""
        self.canv.setFillColor(styles.ALARM_INK)
        self.canv.rect(0, 4, 2.2, self.height, stroke=0, fill=1)
        self.paragraph.drawOn(self.canv, 0, 5)


def _figure(block: Figure, figures: Figures) -> list[Flowable]:
    return [Plot(figures[block.name]), Paragraph(markup(block.caption), styles.CAPTION)]


def _question(item: AnsweredQuestion) -> list[Flowable]:
    heading = f'<font name="Text-Bold">{markup(item.where, "bold")}</font>'
    note = f' · <font name="Text-Italic">{markup(item.note, "italic")}</font>' if item.note else ""
    parts: list[Flowable] = [
        CondPageBreak(76),
        Paragraph(heading + note, styles.NOTE),
        ForeignText(item.text.strip(), size=9.2),
        Spacer(0, 2),
    ]
    for letter, text, chosen in item.options:
        right = letter == item.gold
        whole = f"{text}   ← {chosen}" if chosen else text
        face: Face = "bold" if right else "regular"
        parts.append(
            ForeignText(whole, size=8.6, face=face, label=f"{letter}." if letter else "", indent=15, ink="#1f2328")
        )
    return [*parts, Spacer(0, 9)]


def finding_rows(findings: Sequence[Finding]) -> list[tuple[Paragraph, Paragraph]]:
    """Return number and sentence of each finding for the first page."""
    rows = []
    for finding in findings:
        size = 14 if len(finding.number) <= 8 else 11.5
        ink = "#a8620a" if finding.alarm else "#1f5a96"
        number = f'<font size="{size}" color="{ink}">{markup(finding.number, "bold")}</font>'
        rows.append((Paragraph(number, styles.NUMBER), Paragraph(markup(finding.sentence), styles.FINDING)))
    return rows
