"""Joins Arabic letters: replaces each by its initial, medial, final or isolated presentation form.

The forms and the letters they stand for are Unicode's own (blocks Arabic Presentation Forms A and B), so
no table of letters is kept here. Rules: The Unicode Standard 15, section 9.2, joining types D, R and
transparent marks.
"""

import unicodedata
from functools import lru_cache

ALEF_LAM = "\u0644"
TATWEEL = "\u0640"


@lru_cache(maxsize=1)
def _forms() -> dict[str, dict[str, str]]:
    """Map letters (and the lam-alef pairs) to their forms: ``{'ب': {'initial': 'ﺑ', …}}``."""
    found: dict[str, dict[str, str]] = {}
    for code in (*range(0xFB50, 0xFE00), *range(0xFE70, 0xFEFD)):
        kind, *codes = unicodedata.decomposition(chr(code)).split()[:3] or [""]
        if kind in ("<initial>", "<medial>", "<final>", "<isolated>") and codes and "0020" not in codes:
            letters = "".join(chr(int(c, 16)) for c in codes)
            if len(letters) == 1 or letters[0] == ALEF_LAM and letters[1] in "\u0622\u0623\u0625\u0627":
                found.setdefault(letters, {}).setdefault(kind[1:-1], chr(code))
    return found


def has_arabic(text: str) -> bool:
    """Whether there is a letter to join."""
    return any("\u0600" <= character <= "\u06ff" for character in text)


def join_letters(text: str) -> str:
    """Return ``text`` in reading order, Arabic letters in the form that their neighbours ask for."""
    if not has_arabic(text):
        return text
    forms = _forms()
    cells = _with_ligatures(text, forms)
    letters = [place for place, cell in enumerate(cells) if not _is_mark(cell)]
    result = list(cells)
    for order, place in enumerate(letters):
        cell = cells[place]
        if cell not in forms:
            continue
        before = order > 0 and _joins_next(cells[letters[order - 1]], forms)
        after = (
            order + 1 < len(letters) and _joins_next(cell, forms) and _joins_previous(cells[letters[order + 1]], forms)
        )
        kind = "medial" if before and after else "final" if before else "initial" if after else "isolated"
        result[place] = forms[cell].get(kind) or forms[cell].get("isolated") or cell
    return "".join(result)


def _with_ligatures(text: str, forms: dict[str, dict[str, str]]) -> list[str]:
    cells: list[str] = []
    for character in text:
        if cells and cells[-1] == ALEF_LAM and ALEF_LAM + character in forms:
            cells[-1] += character
        else:
            cells.append(character)
    return cells


def _is_mark(cell: str) -> bool:
    return unicodedata.category(cell[0]) in ("Mn", "Me")


def _joins_next(cell: str, forms: dict[str, dict[str, str]]) -> bool:
    return cell == TATWEEL or "initial" in forms.get(cell, {})


def _joins_previous(cell: str, forms: dict[str, dict[str, str]]) -> bool:
    return cell == TATWEEL or "final" in forms.get(cell, {})
