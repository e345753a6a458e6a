"""Brings the answers of a table to one form: letters for options, however they were written.

Tables write an option as ``B``, ``b``, ``(B)``, ``B.``, as the place 0 to 3 or 1 to 4, or as the option's text. The
form of a benchmark's gold answers decides how its predictions are read.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from llmjobs.errors import DataError
from llmjobs.report.study import Answer

OPTION_LETTERS = "ABCDEFGHIJ"
LETTER = re.compile(r"(?:answer\s*[:=]?\s*)?[(\[]?([A-Za-z])[)\].:,]?", re.IGNORECASE)
LETTER_AND_TEXT = re.compile(r"\(?([A-J])(?:[).:]\s+\S|[).:]?\s*\n)", re.DOTALL)
WRAPPED = re.compile(r"(\*{1,2}|[\"'`])(.+)\1", re.DOTALL)
PLACE = re.compile(r"(\d{1,2})(?:\.0+)?")
"""A place among the options; spreadsheets and data frames write ``1.0`` if another row of the column is empty."""
NOTHING = ("nan", "none", "null", "n/a", "na", "-", "?", "#n/a", "#nv")


def bare(text: str) -> str:
    """Return an answer without invisible characters and emphasis, in plain letters: ``**Ａ**`` is ``A``."""
    text = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf").strip()
    match = WRAPPED.fullmatch(text)
    return match[2].strip() if match else text


def letter_of(text: str) -> str | None:
    """Return the option's letter if it is the whole answer: ``b``, ``(B)``, ``B.``, ``Answer: B``; otherwise None."""
    match = LETTER.fullmatch(bare(text))
    letter = match[1].upper() if match else ""
    return letter if letter and letter in OPTION_LETTERS else None


def place_of(text: str) -> int | None:
    """Return the number of an answer that can be an option's place: ``1``, ``01``, ``1.0``."""
    match = PLACE.fullmatch(text.strip())
    return int(match[1]) if match else None


def said_letter(text: str) -> str | None:
    """Return the letter of a reply that is a letter or begins with one: ``B. Paris``, or a letter on its own line."""
    match = LETTER_AND_TEXT.match(bare(text))
    return letter_of(text) or (match[1] if match else None)


class Answers:
    """How one benchmark of a table writes its answers, derived from all its rows.

    Raises:
        DataError: options are given by their place, and it is unclear whether counting starts at 0 or 1.

    """

    def __init__(self, where: str, records: Iterable[tuple[Answer, Sequence[str]]]) -> None:
        golds: Counter[str] = Counter()
        said: Counter[str] = Counter()
        widest, options = 0, False
        for record, choices in records:
            if record.gold and record.gold.lower() not in NOTHING:
                own = None if place_of(record.gold) is not None else _by_text(record.gold, choices)
                golds[own or record.gold] += 1
            if record.prediction:
                said[_by_text(record.prediction, choices) or record.prediction] += 1
            widest = max(widest, len(record.loglikelihoods or ()), len(choices))
            options = options or bool(record.loglikelihoods or choices)
        self.answered = bool(said)
        letters = sum(count for text, count in said.items() if said_letter(text))
        self.letters = bool(golds) and all(letter_of(text) for text in golds)
        self.no_letters = sorted(text for text in golds if not letter_of(text))
        unlike = sum(golds[text] for text in self.no_letters)
        # T and F, Y and N are not a mixture; a Z beside A, B and C is
        words = any(len(text) > 1 or not text.isalpha() for text in self.no_letters)
        words = words or (bool(self.no_letters) and len(golds) - len(self.no_letters) >= 3)
        self.mixed = words and (2 * unlike <= sum(golds.values()) or letters > sum(said.values()) / 2)
        places = bool(golds) and all(place_of(text) is not None for text in golds)
        mostly = letters > sum(said.values()) / 2
        self.places = places and (
            mostly or (options and not said) or (options and all(place_of(text) is not None for text in said))
        )
        self.gold_from = self.said_from = 0
        if self.places:
            width = max(widest, *(1 + OPTION_LETTERS.index(x) for text in said if (x := said_letter(text))), 0)
            self.gold_from = _first_place(where, "gold answers", _places(golds), width)
        digits = _places(said)
        self.said_places = (self.letters or self.places) and bool(digits)
        if self.said_places:
            width = max(widest, *(1 + OPTION_LETTERS.index(x) for text in golds if (x := letter_of(text))), 0)
            self.said_from = self.gold_from if self.places else _first_place(where, "predictions", digits, width)

    @property
    def of_options(self) -> bool:
        """Whether gold answers are options."""
        return self.letters or self.places

    def gold(self, text: str, choices: Sequence[str]) -> str:
        """Return the gold answer: a letter if answers are options, otherwise unchanged; "" if it is missing."""
        if self.of_options and text.lower() in NOTHING:
            return ""
        if self.letters:
            return letter_of(text) or _by_text(text, choices) or text
        if self.places:
            return _at(text, self.gold_from) or text
        return _by_text(text, choices) or text

    def prediction(self, text: str | None, choices: Sequence[str]) -> str | None:
        """Return the prediction: a letter if answers are options; None if it cannot be read."""
        if text is None or not text.strip():
            return None
        if self.of_options:
            read = said_letter(text) or _by_text(text, choices)
            if not read and self.said_places:
                read = _at(text, self.said_from)
            return read
        return _by_text(text, choices) or (said_letter(text) if choices else None) or text


def _first_place(where: str, what: str, used: set[int], width: int) -> int:
    """Return whether places count from 0 or from 1, depending on whether 0 or the number of options occurs."""
    if 0 in used:
        return 0
    if width and max(used) == width:
        return 1
    raise DataError(
        f"{where}: the {what} are option numbers ({', '.join(map(str, sorted(used)[:6]))}), and it is unclear"
        " whether counting starts at 0 or 1; write letters (A, B, C, …)"
    )


def _at(text: str, first: int) -> str | None:
    written = place_of(text)
    place = -1 if written is None else written - first
    return OPTION_LETTERS[place] if 0 <= place < len(OPTION_LETTERS) else None


def _places(texts: Iterable[str]) -> set[int]:
    return {place for text in texts if (place := place_of(text)) is not None}


def _by_text(text: str, choices: Sequence[str]) -> str | None:
    """Return the letter of the option with this text; a single letter or digit does not count as text."""
    folded = [choice.strip().lower() for choice in choices]
    text = text.strip().lower()
    if len(choices) < 2 or folded.count(text) != 1:
        return None
    at = folded.index(text)
    return OPTION_LETTERS[at] if at < len(OPTION_LETTERS) else None
