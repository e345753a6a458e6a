"""How a rating or a verdict is read out of a judgment: by the known rules, or not at all.

Source: FastChat, llm_judge/common.py: double brackets first, then single ones; here a rating outside of 1 to 10 is no
rating, and of several the first counts, as there.
"""

import re

LOWEST, HIGHEST = 1.0, 10.0
_RATINGS = (re.compile(r"\[\[(\d+(?:\.\d*)?)\]\]"), re.compile(r"\[(\d+(?:\.\d*)?)\]"))
"""FastChat's ``\\d+\\.?\\d*``, with one way only to read a row of digits (there: quadratic time)."""
_VERDICTS = {"[[A]]": "A", "[[B]]": "B", "[[C]]": "tie"}
REMINDER = {
    "single": "Your rating could not be read. Write only the rating from 1 to 10 in double brackets, like this: [[4]]",
    "pairwise": "Your verdict could not be read. Write only [[A]], [[B]] or [[C]].",
}
"""What is said when a judge is asked again, once."""


def read_rating(text: str) -> float | None:
    """The rating in a judgment, None where there is none to read."""
    for pattern in _RATINGS:
        if match := pattern.search(text):
            rating = float(match[1])
            return rating if LOWEST <= rating <= HIGHEST else None
    return None


def is_weakly_rated(text: str) -> bool:
    """Whether a rating is there in single brackets only, as ``[8]`` or as code like ``a[1]``: it may be no rating."""
    return not _RATINGS[0].search(text) and read_rating(text) is not None


def read_verdict(text: str) -> str | None:
    """``A``, ``B`` or ``tie``; None where there is none, or where different ones stand.

    FastChat takes the first kind that occurs anywhere, A before B before C; a judgment that names two is not read here.
    """
    found = {verdict for mark, verdict in _VERDICTS.items() if mark in text}
    return found.pop() if len(found) == 1 else None
