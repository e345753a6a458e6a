"""Numbers as the report prints them: shares, points, intervals, p-values, seconds, sizes."""

import math

from llmjobs.terminal_text import DASH as DASH
from llmjobs.terminal_text import agree as agree
from llmjobs.terminal_text import fixed
from llmjobs.terminal_text import plural as plural

MINUS = "\u2212"


def percent(share: float, digits: int = 1) -> str:
    """Write a share as ``65.3%``; a dash for ``nan``. Only none is ``0%`` and only all is ``100%``."""
    if math.isnan(share):
        return DASH
    text = decimal(100 * share, digits)
    if 0 < share < 1 and float(text) in (0, 100) and digits < 4:
        return percent(share, digits + 1)
    return f"{text}%"


def points(difference: float, *, sign: bool = False) -> str:
    """Write a difference of shares in percentage points, ``6.1`` or ``+6.1``, with a true minus."""
    if math.isnan(difference):
        return DASH
    text = fixed(abs(100 * difference), 1)
    negative = difference < 0 and float(text) != 0
    return (MINUS if negative else "+" if sign and float(text) != 0 else "") + text


def interval(low: float, high: float) -> str:
    """Write the ends of an interval of shares, in percent: ``63.3 to 67.3``; a dash if there is none."""
    return DASH if math.isnan(low) or math.isnan(high) else f"{points(low)} to {points(high)}"


def p_value(p: float) -> str:
    """Return ``p = 0.031`` or ``p < 0.001``."""
    return f"p {plain_p(p)}" if p < 0.001 else f"p = {plain_p(p)}"


def plain_p(p: float) -> str:
    """Return ``0.031``, ``0.42`` or ``< 0.001``, for tables."""
    if math.isnan(p):
        return DASH
    return "< 0.001" if p < 0.001 else fixed(p, 2 if p >= 0.0995 else 3)


def decimal(value: float | None, digits: int = 2) -> str:
    """Write a plain decimal with a true minus; a dash if there is none."""
    if value is None or math.isnan(value):
        return DASH
    return fixed(value, digits).replace("-", MINUS)


def count(value: int | float) -> str:
    """Write a whole number with thousands separated: ``14,042``."""
    return fixed(value, thousands=True)


def seconds(value: float | None) -> str:
    """Write a duration in a suitable unit: ``0.42 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 07 min``."""
    if value is None or math.isnan(value):
        return DASH
    if value < 10:
        return f"{fixed(value, 2)} s"
    if value < 100:
        return f"{fixed(value, 1)} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(value: float | None) -> str:
    """Bytes in binary units: ``310 MiB``, ``5.21 GiB``."""
    if value is None or math.isnan(value):
        return DASH
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= factor:
            number = value / factor
            return f"{fixed(number, 2 if number < 10 else 1 if number < 100 else 0)} {unit}"
    return f"{fixed(value)} B"


def ratio(value: float) -> str:
    """Write a factor: ``0.7``, ``12``."""
    return fixed(value, 0 if value >= 10 else 1 if value >= 0.95 else 2)


def expected(value: float) -> str:
    """Write an expected count: ``19``, ``5.1``, ``fewer than 0.1``."""
    if value < 0.05:
        return "fewer than 0.1"
    return count(value) if value >= 10 else fixed(value, 1)
