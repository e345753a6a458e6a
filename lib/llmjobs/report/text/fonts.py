"""Fonts that are embedded, in order of preference, and which of them has a character.

Source Sans Pro (SIL OFL) for reading, DejaVu Sans (matplotlib's own) for Greek, Arabic, Hebrew, symbols
and some emoji, Droid Sans Fallback (Apache-2.0) for Chinese, Japanese and Korean; then every ``*.ttf`` of
the folder in ``LLMJOBS_FONTS``. What none of them has is printed as a box with its code point.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont

from llmjobs.report.text import extraction
from llmjobs.report.text.visible import code_point, needs_box

Face = Literal["regular", "bold", "italic"]
OWN = Path(__file__).parent.parent / "fonts"
FAMILY = "Source Sans Pro"
FALLBACK_FAMILY = "Droid Sans Fallback"
FILES: dict[Face, tuple[str, str]] = {
    "regular": ("SourceSansPro-Regular.ttf", "DejaVuSans.ttf"),
    "bold": ("SourceSansPro-Semibold.ttf", "DejaVuSans-Bold.ttf"),
    "italic": ("SourceSansPro-It.ttf", "DejaVuSans-Oblique.ttf"),
}
NAMES: dict[Face, str] = {"regular": "Text", "bold": "Text-Bold", "italic": "Text-Italic"}
FALLBACK_FILE = OWN / "DroidSansFallback.ttf"
EXTRA = "LLMJOBS_FONTS"


class Run(NamedTuple):
    """Characters that one font prints; ``boxed``: the code point of a character that none has."""

    font: str
    text: str
    boxed: bool = False


def matplotlib_fonts() -> Path:
    """Return the folder of fonts that comes with matplotlib."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@lru_cache(maxsize=1)
def register_fonts() -> None:
    """Make the reading faces known to reportlab, once a process; fallback fonts follow when needed."""
    extraction.install()
    for face, (file, _) in FILES.items():
        pdfmetrics.registerFont(TTFont(NAMES[face], str(OWN / file)))
    pdfmetrics.registerFontFamily("Text", normal="Text", bold="Text-Bold", italic="Text-Italic", boldItalic="Text-Bold")


@lru_cache(maxsize=64)
def _fallback(face: Face, place: int) -> str | None:
    """Register the fallback font number ``place`` of a face; None past the last."""
    files: list[Path] = [matplotlib_fonts() / FILES[face][1], FALLBACK_FILE, *_extra_files()]
    if face != "regular":
        files.insert(1, matplotlib_fonts() / "DejaVuSans.ttf")
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


@lru_cache(maxsize=20_000)
def font_for(character: str, face: Face) -> str | None:
    """Return the first font that has a character; None where it needs a box."""
    register_fonts()
    code = ord(character)
    if needs_box(character):
        return None
    if _has(NAMES[face], code):
        return NAMES[face]
    place = 0
    while (name := _fallback(face, place)) is not None:
        if name and _has(name, code):
            return name
        place += 1
    return None


def _has(font: str, code: int) -> bool:
    return bool(pdfmetrics.getFont(font).face.charToGlyph.get(code))


def split_runs(text: str, face: Face) -> list[Run]:
    """Split ``text`` into the runs of one font each."""
    register_fonts()
    if text.isascii():
        return [Run(NAMES[face], text)] if text else []
    runs: list[Run] = []
    for character in text:
        font = font_for(character, face)
        if font is None:
            runs.append(Run(NAMES["regular"], code_point(character), boxed=True))
        elif runs and runs[-1].font == font and not runs[-1].boxed:
            runs[-1] = Run(font, runs[-1].text + character)
        else:
            runs.append(Run(font, character))
    return runs


def text_width(text: str, face: Face, size: float) -> float:
    """Width of ``text`` in points."""
    return sum(run_width(run, size) for run in split_runs(text, face))


def run_width(run: Run, size: float) -> float:
    """Width of a run in points; a box is set smaller and padded."""
    if run.boxed:
        return float(pdfmetrics.stringWidth(run.text, run.font, size * 0.62)) + size * 0.4
    return float(pdfmetrics.stringWidth(run.text, run.font, size))
