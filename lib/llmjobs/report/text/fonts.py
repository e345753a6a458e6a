"""The embedded fonts in order of preference, and which of them has a letter.

Source Sans Pro (SIL OFL) for reading, DejaVu Sans (matplotlib's own) for Greek, Arabic, Hebrew, symbols and some emoji,
Noto Sans (SIL OFL) for Thai, Khmer, Burmese and the scripts of India, Droid Sans Fallback (Apache-2.0) for Chinese,
Japanese and Korean; then every ``*.ttf`` of the folder in ``LLMJOBS_FONTS``.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import matplotlib
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont

from llmjobs.report.text.visible import JOINERS, needs_box

Face = Literal["regular", "bold", "italic"]
OWN = Path(__file__).parent.parent / "fonts"
FILES: dict[Face, tuple[str, str]] = {
    "regular": ("SourceSansPro-Regular.ttf", "DejaVuSans.ttf"),
    "bold": ("SourceSansPro-Semibold.ttf", "DejaVuSans-Bold.ttf"),
    "italic": ("SourceSansPro-It.ttf", "DejaVuSans-Oblique.ttf"),
}
NAMES: dict[Face, str] = {"regular": "Text", "bold": "Text-Bold", "italic": "Text-Italic"}
EXTRA = "LLMJOBS_FONTS"


def matplotlib_fonts() -> Path:
    """Return the folder of matplotlib's fonts."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@lru_cache(maxsize=1)
def register_fonts() -> None:
    """Register the reading fonts with reportlab, once per process; fallback fonts follow when needed."""
    for face, (file, _) in FILES.items():
        pdfmetrics.registerFont(TTFont(NAMES[face], str(OWN / file)))
    pdfmetrics.registerFontFamily("Text", normal="Text", bold="Text-Bold", italic="Text-Italic", boldItalic="Text-Bold")


@lru_cache(maxsize=256)
def _fallback(face: Face, place: int) -> str | None:
    """Register the fallback font number ``place`` of a face; None after the last one, empty if it cannot be used."""
    files: list[Path] = [matplotlib_fonts() / FILES[face][1]]
    if face != "regular":
        files.append(matplotlib_fonts() / FILES["regular"][1])
    files += [*sorted(OWN.glob("NotoSans*.ttf")), OWN / "DroidSansFallback.ttf", *_extra_files()]
    if place >= len(files):
        return None
    name = f"Fallback-{files[place].stem}"
    if name not in pdfmetrics.getRegisteredFontNames():
        try:
            pdfmetrics.registerFont(TTFont(name, str(files[place])))
        except (TTFError, OSError):
            return ""
    return name


def _extra_files() -> Sequence[Path]:
    folder = os.environ.get(EXTRA)
    return sorted(Path(folder).glob("*.ttf")) if folder else ()


def font_file(name: str) -> str:
    """Return the file of a registered font."""
    return str(pdfmetrics.getFont(name).face.filename)


@lru_cache(maxsize=20_000)
def font_for(letter: str, face: Face) -> str | None:
    """Return the first font that has a letter with all of its marks; None if no font has it."""
    register_fonts()
    codes = [ord(character) for character in letter if character not in JOINERS]
    if any(needs_box(character) for character in letter):
        return None
    if has_all(NAMES[face], codes):
        return NAMES[face]
    place = 0
    while (name := _fallback(face, place)) is not None:
        if name and has_all(name, codes):
            return name
        place += 1
    return None


def has_all(font: str, codes: Sequence[int]) -> bool:
    """Return whether a font has all characters."""
    glyphs = pdfmetrics.getFont(font).face.charToGlyph
    return all(glyphs.get(code) for code in codes)
