"""Makes the invisible visible: control characters written out, formatting controls in a box."""

import unicodedata

SILENT = {0x200D, 0xFE0E, 0xFE0F}
"""Joiner and variation selectors: they change a neighbour and have no shape of their own."""


def visible(text: str, *, keep_lines: bool = True) -> str:
    r"""Return ``text`` with control characters written as ``\x1b`` and tabs as blanks.

    Line breaks stay when ``keep_lines``, else they become blanks.
    """
    text = text.replace("\r\n", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    if text.isprintable():
        return text
    return "".join(_shown(character, keep_lines) for character in text)


def _shown(character: str, keep_lines: bool) -> str:
    if character == "\n":
        return "\n" if keep_lines else " "
    if character == "\t":
        return "    "
    code = ord(character)
    if code in SILENT:
        return ""
    if unicodedata.category(character) == "Cc":
        return f"\\x{code:02x}"
    return character


def needs_box(character: str) -> bool:
    """Return whether a character has no shape: direction marks, private use, lone surrogates."""
    return unicodedata.category(character) in ("Cf", "Co", "Cn", "Cs") and ord(character) != 0xAD


def code_point(character: str) -> str:
    """``U+1F389``."""
    return f"U+{ord(character):04X}"
