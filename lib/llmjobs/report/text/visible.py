"""Make the invisible visible: control characters escaped, formatting controls in a box, pictures by name."""

import unicodedata

SILENT = {0xFE0E, 0xFE0F}
"""Variation selectors: they change a neighbour and have no shape."""
JOINERS = "\u200c\u200d"
"""They shape the letters around them in Arabic and Indic scripts, join emoji, and otherwise have no effect."""
FIRST_JOINED = 0x0590
SKIN_TONES = range(0x1F3FB, 0x1F400)
FLAG_LETTERS = range(0x1F1E6, 0x1F200)


def visible(text: str, *, keep_lines: bool = True) -> str:
    r"""Return ``text`` with control characters written as ``\x1b`` and tabs as blanks.

    With ``keep_lines``, line breaks stay; otherwise they become blanks.
    """
    text = text.replace("\r\n", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    if text.isprintable():
        return text
    shown: list[str] = []
    for character in text:
        before = shown[-1][-1:] if shown else ""
        shown.append(_shown(character, before, keep_lines) or "")
        if not shown[-1]:
            shown.pop()
    return "".join(shown)


def _shown(character: str, before: str, keep_lines: bool) -> str:
    if character == "\n":
        return "\n" if keep_lines else " "
    if character == "\t":
        return "    "
    code = ord(character)
    if code in SILENT:
        return ""
    if character in JOINERS:
        joins = before and ord(before) >= FIRST_JOINED and unicodedata.category(before) in ("Lo", "Mn", "Mc")
        return character if joins else ""
    if unicodedata.category(character) == "Cc":
        return f"\\x{code:02x}"
    return character


def needs_box(character: str) -> bool:
    """Return whether a character has no shape: direction marks, private use, lone surrogates."""
    if character in JOINERS:
        return False
    return unicodedata.category(character) in ("Cf", "Co", "Cn", "Cs") and ord(character) != 0xAD


def code_point(character: str) -> str:
    """``U+1F389``."""
    return f"U+{ord(character):04X}"


def picture_name(character: str) -> str | None:
    """Return ``[rocket]`` for an emoji or another symbol that no font has; None for other characters."""
    code = ord(character)
    if code in SKIN_TONES:
        return ""
    if code in FLAG_LETTERS:
        return chr(ord("A") + code - FLAG_LETTERS.start)
    name = unicodedata.name(character, "")
    return f"[{name.lower()}]" if name and unicodedata.category(character) == "So" else None
