"""Which text a reader gets when copying from the PDF: the letters that were meant, also past U+FFFF.

reportlab writes each code as four hexadecimal digits, which is no UTF-16 past U+FFFF, and gives an Arabic
letter's presentation form where its letter was meant. ISO 32000-1, 9.10.3: ToUnicode maps hold UTF-16BE,
several units if needed.
"""

import unicodedata
from collections.abc import Sequence

from reportlab.pdfbase import ttfonts

BLOCK = 100
"""Entries of one ``bfchar`` block at most (Adobe Technical Note 5014)."""


def meant(code: int) -> str:
    """Return the text that a printed code point stands for."""
    character = chr(code)
    if 0xFB50 <= code <= 0xFDFF or 0xFE70 <= code <= 0xFEFF:
        return unicodedata.normalize("NFKC", character)
    return character


def to_unicode_cmap(name: str, subset: Sequence[int]) -> str:
    """Return the ToUnicode map of one subset of a font."""
    entries = [
        f"<{index:02X}> <{meant(code).encode('utf-16-be', 'replace').hex().upper()}>"
        for index, code in enumerate(subset)
    ]
    lines = [
        "/CIDInit /ProcSet findresource begin",
        "12 dict begin",
        "begincmap",
        f"/CIDSystemInfo << /Registry ({name}) /Ordering ({name}) /Supplement 0 >> def",
        f"/CMapName /{name} def",
        "/CMapType 2 def",
        "1 begincodespacerange",
        f"<00> <{len(subset) - 1:02X}>",
        "endcodespacerange",
    ]
    for start in range(0, len(entries), BLOCK):
        part = entries[start : start + BLOCK]
        lines += [f"{len(part)} beginbfchar", *part, "endbfchar"]
    lines += ["endcmap", "CMapName currentdict /CMap defineresource pop", "end", "end"]
    return "\n".join(lines)


def install() -> None:
    """Let reportlab write these maps."""
    ttfonts.makeToUnicodeCMap = to_unicode_cmap
