"""A section of the report and its content, independent of the output format: prose, tables, figures, questions.

All text is plain. A new section is one file in ``report/sections`` with ``SECTION = Section(...)``, named in
:data:`llmjobs.make_report.ORDER`.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

from matplotlib.figure import Figure as Plot

from llmjobs.report.measure import Measures

Align = Literal["left", "right", "center"]


@dataclass(frozen=True)
class Prose:
    """A paragraph; ``lead`` is its bold beginning. ``kind`` is plain text, a small note, or an alarm."""

    text: str
    lead: str = ""
    kind: Literal["text", "note", "alarm"] = "text"


@dataclass(frozen=True)
class Heading:
    """A heading below the section's own."""

    text: str


@dataclass(frozen=True)
class Column:
    """A column's title; ``share`` is its share of the free width (0: as wide as its text)."""

    title: str
    align: Align = "right"
    share: float = 0.0


MOST_ROWS = 120
"""Number of rows of a table that are printed by default: about three pages."""


@dataclass(frozen=True)
class Cut:
    """How a long table is cut for reading; the files beside the PDF contain every row.

    The PDF prints the first ``most`` rows of ``order`` (row numbers, the most relevant first), or of the table.
    ``chosen`` describes these rows. ``all_in`` names the file that contains all of them: an existing one or, if empty,
    the table's own (:attr:`Table.file_name`).
    """

    most: int = MOST_ROWS
    order: Sequence[int] | None = None
    chosen: str = ""
    all_in: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of texts under columns; ``strong`` are the rows to print in bold."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()
    note: str = ""
    cut: Cut = Cut()

    @property
    def long(self) -> bool:
        """Whether the PDF only prints a part of it."""
        return len(self.rows) > self.cut.most

    @property
    def file_name(self) -> str:
        """Name of the file with all rows of a long table, if no other file has them."""
        words = re.sub(r"[^a-z0-9]+", "-", self.caption.lower()).strip("-")[:40]
        rows = json.dumps([[column.title for column in self.columns], *map(list, self.rows)])
        return f"tables/{words}-{sha256(rows.encode()).hexdigest()[:8]}.csv"

    def printed(self) -> "Table":
        """Return the table as printed: cut to ``cut.most`` rows, with a note on what was left out."""
        most, total = self.cut.most, len(self.rows)
        if not self.long:
            return self
        kept = sorted((self.cut.order or range(total))[:most])
        chosen = f" ({self.cut.chosen})" if self.cut.chosen else ""
        first = "" if self.cut.chosen else "the first "
        file = self.cut.all_in or self.file_name
        shown = f"Shown: {first}{len(kept)} of {total:,} rows{chosen}. All of them are in {file}."
        return replace(
            self,
            rows=[self.rows[place] for place in kept],
            strong=frozenset(at for at, place in enumerate(kept) if place in self.strong),
            note=f"{shown} {self.note}".strip(),
        )


@dataclass(frozen=True)
class Figure:
    """A plot with the name of its files and a caption that says what to see."""

    name: str
    caption: str
    draw: Callable[[], Plot]


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question in readable form, with its options and who chose which; ``note`` is about its label."""

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
    """A sentence for the first page: ``number`` is printed large, ``weight`` is its rank (higher comes first)."""

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


def few(blocks: Sequence[Block], most: int, what: str, all_in: str) -> list[Block]:
    """Return the first ``most`` of blocks that say one thing per model, and a note on how many more there are."""
    if len(blocks) <= most:
        return list(blocks)
    more = f"{len(blocks) - most:,} more {what} are left out here; all of them are in {all_in}."
    return [*blocks[:most], Prose(more, kind="note")]


@dataclass(frozen=True)
class Section:
    """One chapter of the report. ``build`` is called only if ``wanted`` returns true."""

    key: str
    title: str
    wanted: Callable[[Measures], bool]
    build: Callable[[Measures], Content]


MAX_NAME = 60


def file_name(kind: str, benchmark: str, measures: Measures, part: int | None = None) -> str:
    """Return a figure's file name. It contains the benchmark only if there are several."""
    safe = "".join(c if c.isalnum() and c.isascii() or c in "-_" else "-" for c in benchmark)[:MAX_NAME]
    names = [other.name.lower() for other in measures.study.benchmarks]
    if safe.lower() != benchmark.lower() or names.count(benchmark.lower()) > 1:
        safe += f"-{hashlib.sha256(benchmark.encode('utf-8', 'replace')).hexdigest()[:8]}"
    name = f"{kind}-{safe}" if len(measures.study.benchmarks) > 1 else kind
    return f"{name}-{part + 1}" if part is not None else name
