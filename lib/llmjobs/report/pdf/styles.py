"""Fonts and colours: every size, space and colour of the page in one place."""

from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_LEFT, TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm

from llmjobs.report.figure_style import INK, MUTED, ORANGE, RULE

PAGE = A4
LEFT, RIGHT, TOP, BOTTOM = 22.5 * mm, 22.5 * mm, 26 * mm, 22 * mm
WIDTH = PAGE[0] - LEFT - RIGHT
FRAME_HEIGHT = PAGE[1] - TOP - BOTTOM
BODY_SIZE, LEADING = 9.6, 13.6
RULE_INK, MUTED_INK, TEXT_INK, ALARM_INK = HexColor(RULE), HexColor(MUTED), HexColor(INK), HexColor(ORANGE)

BODY = ParagraphStyle("body", fontName="Text", fontSize=BODY_SIZE, leading=LEADING, textColor=TEXT_INK, spaceAfter=6)
NOTE = ParagraphStyle("note", parent=BODY, fontSize=8.2, leading=11, textColor=MUTED_INK, spaceAfter=6)
ALARM = ParagraphStyle("alarm", parent=BODY, borderColor=ALARM_INK, leftIndent=9, spaceBefore=2, spaceAfter=7)
TITLE = ParagraphStyle("title", parent=BODY, fontName="Text-Bold", fontSize=22, leading=26, spaceAfter=3)
SUBTITLE = ParagraphStyle("subtitle", parent=BODY, fontSize=10.5, leading=14.5, textColor=MUTED_INK, spaceAfter=0)
SECTION = ParagraphStyle(
    "section", parent=BODY, fontName="Text-Bold", fontSize=15.5, leading=19, spaceBefore=20, spaceAfter=7
)
HEADING = ParagraphStyle(
    "heading", parent=BODY, fontName="Text-Bold", fontSize=10.8, leading=14, spaceBefore=10, spaceAfter=4
)
CAPTION = ParagraphStyle("caption", parent=NOTE, spaceBefore=2, spaceAfter=12)
TABLE_TITLE = ParagraphStyle(
    "tabletitle", parent=BODY, fontName="Text-Bold", fontSize=9, leading=12, spaceBefore=8, spaceAfter=3
)
CELL = ParagraphStyle("cell", parent=BODY, fontSize=8.4, leading=10.6, spaceAfter=0)
QUESTION = ParagraphStyle("question", parent=BODY, fontSize=9.2, leading=12.1, spaceAfter=0)
OPTION_SIZE = 8.6


def number(size: float) -> ParagraphStyle:
    """Style of a finding's number."""
    return ParagraphStyle(
        f"number-{size}", parent=BODY, fontName="Text-Bold", fontSize=size, leading=17, alignment=TA_RIGHT
    )


def option(right: bool, label_width: float) -> ParagraphStyle:
    """Style of an option: the right one is bold, and the text starts after the label, whatever the label's width."""
    return ParagraphStyle(
        f"option-{right}-{label_width}",
        parent=BODY,
        fontName="Text-Bold" if right else "Text",
        fontSize=OPTION_SIZE,
        leading=11.4,
        leftIndent=max(15.0, label_width + 6),
        spaceAfter=0,
    )


FINDING = ParagraphStyle("finding", parent=BODY, fontSize=10.2, leading=14, alignment=TA_LEFT, spaceAfter=0)
CONTENTS = ParagraphStyle("contents", parent=BODY, fontSize=9.4, leading=13.4, spaceAfter=0)
