"""What a section says, free of any paper: prose, tables, figures, questions. All text is plain text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from matplotlib.figure import Figure as Plot

Align = Literal["left", "right", "center"]


@dataclass(frozen=True)
class Prose:
    """A paragraph; ``lead`` opens it in bold. ``kind`` is plain text, a small note, or an alarm."""

    text: str
    lead: str = ""
    kind: Literal["text", "note", "alarm"] = "text"


@dataclass(frozen=True)
class Heading:
    """A heading below the section's own."""

    text: str


@dataclass(frozen=True)
class Column:
    """A column's title; ``share`` is its part of the free width (0: as wide as its text)."""

    title: str
    align: Align = "right"
    share: float = 0.0


@dataclass(frozen=True)
class Table:
    """Rows of texts under columns; ``strong`` are the rows to print in bold."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A plot with the name of its files and the caption that says what to see."""

    name: str
    caption: str
    draw: Callable[[], Plot]


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question as people read it, with its options and who chose which; ``note`` is about its label."""

    where: str
    text: str
    options: Sequence[tuple[str, str, str]]
    gold: str
    note: str = ""


@dataclass(frozen=True)
class Questions:
    """A list of questions."""

    items: Sequence[AnsweredQuestion]


Block = Prose | Heading | Table | Figure | Questions


@dataclass(frozen=True)
class Finding:
    """A sentence for the first page: ``number`` is its figure, ``weight`` its rank (higher is first)."""

    number: str
    sentence: str
    weight: float
    section: str = ""
    alarm: bool = False


@dataclass(frozen=True)
class Content:
    """What a section contributes."""

    blocks: Sequence[Block] = ()
    findings: Sequence[Finding] = ()
    notes: Sequence[tuple[str, str]] = ()
    data: dict[str, Any] = field(default_factory=dict)
