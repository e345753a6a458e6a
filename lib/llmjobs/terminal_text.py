"""How figures and tables are written as text: rounding, seconds, bytes, columns."""

import math
from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal

GIB = 1 << 30
DASH = "–"
"""Printed where nothing was measured, which is not zero."""
SIGNIFICANT = 12
"""Digits that count: even a mean of a million values has this many."""


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    out = []
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        out.append("  ".join(cells).rstrip())
        if number == 0:
            out.append("  ".join("─" * w for w in widths))
    return out


def plural(number: int, one: str, many: str = "") -> str:
    """Return ``1 model``, ``3 models`` or ``1,200 models``; ``many`` is for words that do not just take an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def agree(number: int, one: str, many: str) -> str:
    """Return the form that goes with a number: ``one`` with 1, ``many`` with any other."""
    return one if number == 1 else many


def listed(names: Iterable[str], limit: int = 6) -> str:
    """Write ``A, B and C``; names beyond ``limit`` are counted."""
    items = list(names)
    if len(items) > limit:
        items = [*items[: limit - 1], f"{len(items) - limit + 1} more"]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def fixed(value: float, digits: int = 0, *, thousands: bool = False) -> str:
    """Write ``value`` with ``digits`` decimals, half up, without a minus before a zero; ``nan`` and ``inf`` as text.

    Half up, as people round: 9.175 becomes 9.18 and 0.5475 becomes 54.8 %. A binary number is seldom exactly the
    decimal that it stands for (5.475 is stored as 5.47499999999999964), so the last digits, which hold no information,
    are dropped before rounding.
    """
    if not math.isfinite(value):
        return str(float(value))
    number = Decimal(f"{float(value):.{SIGNIFICANT}g}").quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    if number == 0:
        number = abs(number)
    return f"{number:,f}" if thousands else f"{number:f}"


def seconds(value: float | None) -> str:
    """``0.42 s``, ``12.3 s``, ``4:05``, ``2:03:20``; a dash for None."""
    if value is None:
        return DASH
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def gib(size: float | None) -> str:
    """Bytes as GiB, MiB below a tenth of one; a dash for None."""
    if size is None:
        return DASH
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"
