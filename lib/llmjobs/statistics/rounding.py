"""Rounds half up, as people do: 9.175 becomes 9.18 and 0.5475 becomes 54.8 %.

A binary number is seldom exactly the decimal that it stands for (5.475 is stored as 5.47499999999999964), so the
last digits, which hold no information, are dropped before the rounding.
"""

import math
from decimal import ROUND_HALF_UP, Decimal

SIGNIFICANT = 12
"""Digits that are trusted: a mean of a million figures still has them."""


def fixed(value: float, digits: int = 0, *, thousands: bool = False) -> str:
    """Write ``value`` with ``digits`` decimals, half up, without a minus before a zero; ``nan`` and ``inf`` as text."""
    if not math.isfinite(value):
        return str(float(value))
    number = Decimal(f"{float(value):.{SIGNIFICANT}g}").quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    if number == 0:
        number = abs(number)
    return f"{number:,f}" if thousands else f"{number:f}"
