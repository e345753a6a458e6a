"""Puts a line that holds right-to-left text in the order in which it is printed from left to right.

The Unicode Bidirectional Algorithm (UAX 9) without explicit embeddings, which are shown as boxes: first
strong letter for the base direction (P2), numbers (W1 to W7 in short), neutrals between equal directions
(N1, N2), reversal (L2), mirrored brackets (L4).
"""

import unicodedata

MIRROR = dict(zip("()[]{}<>«»‹›", ")(][}{><»«›‹", strict=True))


def is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction reads from right to left."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind in ("R", "AL"):
            return True
        if kind == "L":
            return False
    return False


def has_right_to_left(text: str) -> bool:
    """Whether any letter reads from right to left."""
    return not text.isascii() and any(unicodedata.bidirectional(c) in ("R", "AL") for c in text)


def printed_order(line: str, base_right: bool | None = None) -> str:
    """Return a line's characters from left to right; ``base_right``: the paragraph's direction."""
    if not has_right_to_left(line):
        return line
    base = int(is_right_to_left(line) if base_right is None else base_right)
    levels = _levels(line, base)
    order = list(range(len(line)))
    for level in range(max(levels), 0, -1):
        start = None
        for place in range(len(order) + 1):
            inside = place < len(order) and levels[order[place]] >= level
            if inside and start is None:
                start = place
            elif not inside and start is not None:
                order[start:place] = reversed(order[start:place])
                start = None
    return "".join(
        MIRROR.get(line[i], line[i]) if levels[i] % 2 else line[i] for i in _marks_after(order, line, levels)
    )


def _marks_after(order: list[int], line: str, levels: list[int]) -> list[int]:
    """Put the marks of a right-to-left letter after it again: fonts place them on the letter before (L3)."""
    result: list[int] = []
    waiting: list[int] = []
    for place in order:
        if levels[place] % 2 and unicodedata.category(line[place]) == "Mn":
            waiting.append(place)
        else:
            result += [place, *reversed(waiting)]
            waiting = []
    return result + waiting


def _levels(line: str, base: int) -> list[int]:
    kinds = [_kind(character) for character in line]
    strong = "R" if base else "L"
    for place, kind in enumerate(kinds):
        if kind in "LR":
            strong = kind
        elif kind == "M":
            kinds[place] = kinds[place - 1] if place else strong
        elif kind == "N" and strong == "L":
            kinds[place] = "L"
        elif kind == "S":
            between = 0 < place < len(kinds) - 1 and kinds[place - 1] == "N" and kinds[place + 1] == "N"
            kinds[place] = "N" if between else "O"
    _resolve_neutrals(kinds, "R" if base else "L")
    by_kind = {"L": 2 if base else 0, "R": 1, "N": 2}
    return [by_kind[kind] for kind in kinds]


def _kind(character: str) -> str:
    kind = unicodedata.bidirectional(character)
    if kind in ("R", "AL"):
        return "R"
    if kind == "L":
        return "L"
    if kind in ("EN", "AN"):
        return "N"
    if kind in ("CS", "ES", "ET"):
        return "S"
    return "M" if kind == "NSM" else "O"


def _resolve_neutrals(kinds: list[str], base: str) -> None:
    place = 0
    while place < len(kinds):
        if kinds[place] != "O":
            place += 1
            continue
        end = place
        while end < len(kinds) and kinds[end] == "O":
            end += 1
        before = _side(kinds[place - 1]) if place else base
        after = _side(kinds[end]) if end < len(kinds) else base
        kinds[place:end] = [before if before == after else base] * (end - place)
        place = end


def _side(kind: str) -> str:
    return "L" if kind == "L" else "R"
