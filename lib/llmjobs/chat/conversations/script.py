"""What a scripted conversation is: the user's turns, and how an answer is checked."""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["recall", "corrected", "instruction", "pronoun", "arithmetic"]
KINDS: tuple[Kind, ...] = ("recall", "corrected", "instruction", "pronoun", "arithmetic")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


@dataclass(frozen=True)
class Turn:
    """One message of the user. A question carries what the answer must say and how many turns back it was told."""

    text: str
    kind: Kind | None = None
    expected: str | None = None
    distance: int | None = None
    others: tuple[str, ...] = ()
    """Values that a right answer does not say."""
    must_end: bool = False
    """The answer must end with what is expected (an instruction on form)."""

    def is_right(self, answer: str) -> bool:
        """Whether an answer says what is expected, as whole words, and none of the other values."""
        if self.expected is None:
            return False
        said, wanted = words(answer), words(self.expected)
        if self.must_end:
            return said[-len(wanted) :] == wanted
        return _contains(said, wanted) and not any(_contains(said, words(other)) for other in self.others)


@dataclass(frozen=True)
class Script:
    """One conversation: who it is, its system message, the user's turns in order."""

    id: str
    turns: tuple[Turn, ...]
    system: str | None = None


def words(text: str) -> list[str]:
    """Lower-case words; numbers up to twelve as digits, a possessive ``'s`` gone."""
    found = [word.removesuffix("'s").removesuffix("’s") for word in _WORD.findall(text.lower())]
    return [str(_NUMBERS.index(word)) if word in _NUMBERS else word for word in found]


def _contains(said: list[str], wanted: list[str]) -> bool:
    return any(said[i : i + len(wanted)] == wanted for i in range(len(said) - len(wanted) + 1))
