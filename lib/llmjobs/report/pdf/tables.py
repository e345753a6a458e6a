"""Tables: few rules, headers repeated on every page, and column widths such that nothing is cut off."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from reportlab.lib.styles import ParagraphStyle
from reportlab.platypus import CondPageBreak, Flowable, LongTable

from llmjobs.report.blocks import Align, Column, Table
from llmjobs.report.pdf.styles import CELL, MUTED_INK, NOTE, RULE_INK, TABLE_TITLE, TEXT_INK, WIDTH
from llmjobs.report.pdf.text_flowable import PIECES, Text
from llmjobs.report.text.fonts import Face
from llmjobs.report.text.shaping import text_width

PAD = 9.0
SIZES = (8.4, 7.8, 7.2, 6.6, 6.0)
ALIGN = {"left": 0, "center": 1, "right": 2}
MOST_LINES = 9
"""Maximum number of lines of a cell, so every row fits on a page."""


def table_flowables(table: Table, width: float = WIDTH) -> list[Flowable]:
    """Return caption, table and note; the caption stays with the table's first rows."""
    table = table.printed()
    size, widths = fit(table, width)
    header = [_cell(c.title, c.align, size, "bold") for c in table.columns]
    rows = [
        [
            _cell(text, column.align, size, "bold" if place in table.strong else "regular")
            for text, column in zip(row, table.columns, strict=True)
        ]
        for place, row in enumerate(table.rows)
    ]
    made = LongTable([header, *rows], colWidths=widths, repeatRows=1, hAlign="LEFT", spaceAfter=4)
    made.setStyle(_style())
    room = CondPageBreak(size * 1.26 * 5 + 30)
    found: list[Flowable] = [room, Text(table.caption, TABLE_TITLE), made]
    return [*found, Text(table.note, NOTE)] if table.note else found


def fit(table: Table, width: float) -> tuple[float, list[float]]:
    """Return the font size and column widths; columns with a share divide what the others leave.

    Names are broken at their separators first; only the smallest font size breaks them elsewhere.
    """
    columns = range(len(table.columns))
    for size in SIZES:
        natural = [_natural(table, place, size) for place in columns]
        fixed = sum(w for w, c in zip(natural, table.columns, strict=True) if not c.share)
        shares = sum(c.share for c in table.columns)
        free = width - fixed
        words = [_longest_word(table, place, size) if table.columns[place].share else 0.0 for place in columns]
        narrow = sum(min(w, max(70.0, word)) for w, word in zip(natural, words, strict=True) if word)
        if free >= narrow or size == SIZES[-1]:
            break
    if free < narrow:
        return size, _capped(
            [min(w, 70.0) if c.share else w for w, c in zip(natural, table.columns, strict=True)], width
        )
    if not shares:
        return size, _capped(natural, width)
    return size, _shared(table.columns, natural, free, shares)


def _shared(columns: Sequence[Column], natural: Sequence[float], free: float, shares: float) -> list[float]:
    """Divide ``free`` among the columns with a share; what one does not need goes to the others."""
    widths = [0.0 if column.share else wide for column, wide in zip(columns, natural, strict=True)]
    waiting, room = {place for place, column in enumerate(columns) if column.share}, free
    while waiting:
        per_share = room / sum(columns[place].share for place in waiting)
        content = {place for place in waiting if natural[place] <= per_share * columns[place].share}
        for place in content or waiting:
            widths[place] = natural[place] if content else per_share * columns[place].share
        room -= sum(widths[place] for place in content or waiting)
        waiting -= content or set(waiting)
    return [w + max(room, 0.0) * c.share / shares for w, c in zip(widths, columns, strict=True)]


def _capped(natural: Sequence[float], width: float) -> list[float]:
    """Narrow the widest columns until all fit, so a very long name leaves room for the others."""
    left = width
    for place, smallest in enumerate(sorted(natural)):
        fair = left / (len(natural) - place)
        if smallest > fair:
            return [min(w, fair) for w in natural]
        left -= smallest
    return list(natural)


def _natural(table: Table, place: int, size: float) -> float:
    title = max((text_width(word, "bold", size) for word in table.columns[place].title.split()), default=0.0)
    cells = (text_width(text, face, size) for text, face in _texts(table, place))
    return max([title, *cells]) + PAD + 1.5


def _longest_word(table: Table, place: int, size: float) -> float:
    """Width of the longest piece without a possible line break."""
    pieces = (text_width(piece, face, size) for text, face in _texts(table, place) for piece in PIECES.findall(text))
    return float(min(max(pieces, default=0.0), WIDTH / 4)) + PAD + 1.5


def _texts(table: Table, place: int) -> list[tuple[str, Face]]:
    return [(row[place], "bold" if number in table.strong else "regular") for number, row in enumerate(table.rows)]


def _cell(text: str, align: Align, size: float, face: Face) -> Text:
    return Text(text, _cell_style(align, size, face), most_lines=MOST_LINES)


@lru_cache(maxsize=64)
def _cell_style(align: Align, size: float, face: Face) -> ParagraphStyle:
    return ParagraphStyle(
        f"cell-{align}-{size}-{face}",
        parent=CELL,
        fontSize=size,
        leading=size * 1.26,
        alignment=ALIGN[align],
        fontName="Text-Bold" if face == "bold" else "Text",
        textColor=TEXT_INK,
    )


def _style() -> list[tuple[Any, ...]]:
    return [
        ("LINEABOVE", (0, 0), (-1, 0), 0.8, TEXT_INK),
        ("LINEBELOW", (0, 0), (-1, 0), 0.5, MUTED_INK),
        ("LINEBELOW", (0, 1), (-1, -2), 0.25, RULE_INK),
        ("LINEBELOW", (0, -1), (-1, -1), 0.8, TEXT_INK),
        ("FONTNAME", (0, 0), (-1, -1), "Text"),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("VALIGN", (0, 0), (-1, 0), "BOTTOM"),
        ("LEFTPADDING", (0, 0), (-1, -1), PAD / 2),
        ("RIGHTPADDING", (0, 0), (-1, -1), PAD / 2),
        ("LEFTPADDING", (0, 0), (0, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 2.2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.6),
    ]
