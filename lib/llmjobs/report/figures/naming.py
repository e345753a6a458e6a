"""Names that fit beside a plot and still tell the models apart: cut where they are alike, not where they differ."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

PARTS = re.compile(r"[\s\-_/.:()]+|[^\s\-_/.:()]+")
"""Separators and what stands between them."""


def short_names(names: Sequence[str], limit: int = 34) -> list[str]:
    """Return names at most ``limit`` wide that differ where the names do.

    Words that other names have too are left out, long ones first, sizes and versions last:
    beside ``Llama-3.2-3B-Instruct``, ``Llama-3.2-1B-Instruct`` becomes ``Llama-3.2-1B-…``, never ``Llama-3.2-…struct``.
    """
    shared = Counter(part for name in set(names) for part in set(PARTS.findall(name)))
    cut = [_shortened(name, limit, shared) for name in names]
    if len(set(cut)) == len(set(names)):
        return cut
    return [f"{n + 1}: {_shortened(name, limit - len(str(n + 1)) - 2, shared)}" for n, name in enumerate(names)]


def name_width(name: str) -> int:
    """Width in letters: East Asian letters count twice, marks on a letter not at all."""
    return sum(
        2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 1
        for c in name
    )


def _shortened(name: str, limit: int, shared: Counter[str]) -> str:
    if name_width(name) <= limit:
        return name
    parts = PARTS.findall(name)
    words = [place for place, part in enumerate(parts) if part[0].isalnum() and shared[part] > 1]
    words.sort(key=lambda place: _worth(parts[place], shared[parts[place]], place))
    gone: set[int] = set()
    for place in words:
        gone.add(place)
        text = _joined(parts, gone)
        if name_width(text) <= limit:
            return text
    return _cut(_joined(parts, gone), max(limit, 3))


def _worth(part: str, names: int, place: int) -> tuple[bool, int, int, int]:
    """Order of parting with a word: long ones first, then those of most names; sizes and versions come last."""
    return any(c.isdigit() for c in part), -len(part), -names, -place


def _joined(parts: Sequence[str], gone: set[int]) -> str:
    """Put the parts together; neighbours that are gone, with what separates them, become one ellipsis."""
    text = "".join("…" if place in gone else part for place, part in enumerate(parts))
    return re.sub(r"…([\s\-_/.:()]*…)+", "…", text)


def _cut(name: str, limit: int) -> str:
    """Cut the middle out of a name, at the edges of letters with their marks."""
    if name_width(name) <= limit:
        return name
    letters = _letters(name)
    head = limit * 3 // 5
    left = _taken(letters, head)
    right = _taken(letters[::-1], limit - head - 1)
    return f"{''.join(letters[:left])}…{''.join(letters[len(letters) - right :])}"


def _letters(name: str) -> list[str]:
    letters: list[str] = []
    for character in name:
        if letters and unicodedata.category(character)[0] == "M":
            letters[-1] += character
        else:
            letters.append(character)
    return letters


def _taken(letters: Sequence[str], room: int) -> int:
    """How many letters fit into ``room``."""
    for place, letter in enumerate(letters):
        room -= name_width(letter)
        if room < 0:
            return place
    return len(letters)
