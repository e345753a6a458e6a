"""Phrases that several chapters of the report share: lists of names, counts in words, the strength of an effect."""

from llmjobs.report.numbers import count
from llmjobs.terminal_text import DASH as DASH
from llmjobs.terminal_text import agree as agree
from llmjobs.terminal_text import fixed
from llmjobs.terminal_text import listed as listed
from llmjobs.terminal_text import plural as plural

TOGETHER = "95% for all pairs together"
"""Name of an interval that holds simultaneously with those of the other pairs."""
WORDS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


def word(number: int) -> str:
    """Small numbers as words."""
    return WORDS[number] if 0 <= number < len(WORDS) else count(number)


def all_of(number: int) -> str:
    """``both`` for two, ``all six`` for more, ``the one`` for one."""
    return "the one" if number == 1 else "both" if number == 2 else f"all {word(number)}"


def any_of(number: int, noun: str) -> str:
    """Return ``either model`` for two, ``any of the six models`` for more, ``the model`` for one."""
    if number == 1:
        return f"the {noun}"
    return f"either {noun}" if number == 2 else f"any of the {word(number)} {noun}s"


def each_other(number: int) -> str:
    """Return ``the other`` for one, ``both others`` for two, ``each of the six others`` for more."""
    return "the other" if number == 1 else "both others" if number == 2 else f"each of the {word(number)} others"


def sentence(text: str) -> str:
    """Begin with a capital letter; names and numbers in the middle stay as they are."""
    return text[:1].upper() + text[1:]


def strength(effect: float) -> str:
    """Cohen's words for a correlation or Cramér's V against two outcomes: small 0.1, medium 0.3, large 0.5.

    Source: Cohen, Statistical Power Analysis (1988), section 7.2.
    """
    shown = float(fixed(effect, 2))
    return "large" if shown >= 0.5 else "medium" if shown >= 0.3 else "small" if shown >= 0.1 else "very small"
