"""Set a line in any script: in printed order, in fonts that have its letters, with letters joined and stacked.

python-bidi applies the Unicode Bidirectional Algorithm; HarfBuzz gives the shapes and positions of the letters. What no
font has is printed by its name (``[rocket]``) or as a box with its code point. Without the two packages, letters are
printed side by side in reading order.

A name that reads from right to left is isolated (UAX 9). Otherwise a number behind it takes part in its order:
``78.2%`` would move to the name's left, and the figures of two names in a row would change places.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from reportlab.lib.colors import HexColor
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfgen.canvas import Canvas

from llmjobs.report.study import Study
from llmjobs.report.text.fonts import NAMES, Face, font_file, font_for, has_all, register_fonts
from llmjobs.report.text.visible import JOINERS, code_point, needs_box, picture_name

FIRST, END = "\u2068", "\u2069"
"""Marks around an isolate whose own first letter gives its direction, for readers that know them (a browser)."""
RIGHT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
"""The blocks of the scripts that read from right to left."""
NAMED = frozenset({"model", "judge", "name", "agent", "set", "first", "second", "benchmark", "subject"})
"""Keys of a job's summary that contain names."""
_names: re.Pattern[str] | None = None


@contextmanager
def isolated(names: Iterable[str]) -> Iterator[None]:
    """While this lasts, :func:`parts_of` separates each of ``names`` from the text around it."""
    global _names
    before, _names = _names, _pattern(names)
    try:
        yield
    finally:
        _names = before


def _pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """Find names with letters that read from right to left, and their words, since a line may break in a name.

    Inside running text of such a script, a name is a word like others: there, what is around it stays in order.
    """
    found = {name.strip() for name in names if re.search(f"[{RIGHT}]", name)}
    if not found:
        return None
    words = {word for name in found for word in name.split() if re.search(f"[{RIGHT}]", word)}
    longest_first = [*sorted(found, key=_size), *sorted(words - found, key=_size)]
    before, after = rf"(?<![\w{RIGHT}])(?<![{RIGHT}]\s)", rf"(?![\w{RIGHT}]|\s[{RIGHT}])"
    return re.compile(f"{before}({'|'.join(map(re.escape, longest_first))}){after}")


def _size(name: str) -> tuple[int, str]:
    return -len(name), name


def parts_of(text: str) -> list[str]:
    """Split a text; names that are typeset separately are at the odd places."""
    return _names.split(text) if _names else [text]


def marked(text: str) -> str:
    """Put marks around the names in a text that a browser or an editor will set."""
    return "".join(f"{FIRST}{part}{END}" if at % 2 else part for at, part in enumerate(parts_of(text)))


def names_in(study: Study) -> set[str]:
    """All names that a report's sentences may hold: models, judges, benchmarks, subjects."""
    names = {entry.label for entry in study.entries} | {entry.info.id for entry in study.entries}
    for benchmark in study.benchmarks:
        names |= {benchmark.name, *benchmark.subjects}
    names |= {table.benchmark for table in study.graded}
    for run in study.runs:
        names |= {cell.model for cell in run.cells} | set(_named(run.summary))
    return names | {name.rpartition("/")[2] for name in names}


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in NAMED and isinstance(inner, str):
                yield inner
            yield from _named(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named(inner)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


uharfbuzz, bidi = _package("uharfbuzz"), _package("bidi.algorithm")

KEPT = {0x200C: 0xE01EE, 0x200D: 0xE01EF}
KEPT_BACK = {there: here for here, there in KEPT.items()}
"""The algorithm drops joiners (UAX 9, X9), so they pass through it as marks on the previous letter."""
EM = 1000
"""Positions and widths of glyphs are in thousandths of the font size."""
FIRST_PRIVATE, PRIVATE = 0xE000, 0x1900
"""Code points that stand for glyphs without one in reportlab; the text for copying is stored with them."""
FIRST_BOX = 0x100000
COMPLEX = range(0x0590, 0x1100), range(0x1700, 0x1B00), range(0x1CD0, 0x1D00), range(0xA800, 0xAC00)
"""Code points of scripts whose letters change with their neighbours, carry marks, or read from right to left."""


class Glyph(NamedTuple):
    """A glyph of a font: its position, its advance, and the text that it begins."""

    number: int
    x: float
    y: float
    advance: float
    text: str


class Run(NamedTuple):
    """Letters of one font: plain ones as text, shaped ones as glyphs; or a box with a code point."""

    font: str
    text: str
    glyphs: tuple[Glyph, ...] = ()
    boxed: bool = False


def text_width(text: str, face: Face, size: float) -> float:
    """Width of ``text`` in points."""
    return sum(run_width(run, size) for run in set_line(text, face))


def run_width(run: Run, size: float) -> float:
    """Width of a run in points; a box is set smaller and padded."""
    if run.glyphs:
        return sum(glyph.advance for glyph in run.glyphs) * size / EM
    if run.boxed:
        return float(pdfmetrics.stringWidth(run.text, run.font, size * 0.62)) + size * 0.4
    return float(pdfmetrics.stringWidth(run.text, run.font, size))


def is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction reads from right to left."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind in ("R", "AL", "L"):
            return kind != "L"
    return False


def set_line(text: str, face: Face, right: bool = False) -> Sequence[Run]:
    """Return the runs of a line from left to right; ``right``: the paragraph reads from right to left."""
    if text.isascii():
        register_fonts()
        return (Run(NAMES[face], text),) if text else ()
    set_parts = [
        _set_part(part, face, is_right_to_left(part) if at % 2 else right)
        for at, part in enumerate(parts_of(text))
        if part
    ]
    return tuple(itertools.chain.from_iterable(reversed(set_parts) if right else set_parts))


@lru_cache(maxsize=20_000)
def _set_part(text: str, face: Face, right: bool) -> tuple[Run, ...]:
    prepared, boxes = _prepare(text, face)
    runs: list[Run] = []
    for part, part_right in _directions(prepared, right):
        fonts = list(_fonts(part, face, boxes, part_right))
        for font, letters in reversed(fonts) if part_right else fonts:
            if not font:
                runs.append(Run(NAMES["regular"], code_point(boxes[ord(letters) - FIRST_BOX]), boxed=True))
            elif part_right or any(_is_complex(c) for c in letters):
                runs.append(Run(font, letters, _shape(letters, font, part_right)))
            else:
                runs.append(Run(font, letters))
    return tuple(runs)


def _prepare(text: str, face: Face) -> tuple[str, list[str]]:
    """Return the line with names for pictures that no font has, and placeholders for what is printed in boxes."""
    parts: list[str] = []
    boxes: list[str] = []
    for letter in letters_of(text):
        if font_for(letter, face):
            parts.append(letter)
            continue
        for character in letter:
            if character in JOINERS:
                continue
            if font_for(character, face):
                parts.append(character)
            elif (name := None if needs_box(character) else picture_name(character)) is not None:
                parts.append(name)
            else:
                parts.append(chr(FIRST_BOX + len(boxes)))
                boxes.append(character)
    return "".join(parts), boxes


def letters_of(text: str) -> list[str]:
    """Split into letters with their marks and joiners, which must stay together."""
    letters: list[str] = []
    for character in text:
        mark = unicodedata.category(character)[0] == "M" or character in JOINERS
        if letters and (mark or letters[-1][-1] in JOINERS):
            letters[-1] += character
        else:
            letters.append(character)
    return letters


def _directions(text: str, right: bool) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a line from left to right, each in reading order, and whether it reads to the left."""
    if bidi is None or not (right or any(unicodedata.bidirectional(c) in ("R", "AL") for c in text)):
        yield text, False
        return
    storage = bidi.get_empty_storage() | {"base_level": int(right), "base_dir": "LR"[right]}
    bidi.get_embedding_levels(text.translate(KEPT), storage)
    bidi.explicit_embed_and_overrides(storage)
    bidi.resolve_weak_types(storage)
    bidi.resolve_neutral_types(storage, False)
    bidi.resolve_implicit_levels(storage, False)
    bidi.reorder_resolved_levels(storage, False)
    part, odd = "", False
    for character in storage["chars"]:
        if part and character["level"] % 2 != odd:
            yield part[::-1] if odd else part, odd
            part = ""
        part, odd = part + character["ch"].translate(KEPT_BACK), bool(character["level"] % 2)
    yield part[::-1] if odd else part, odd


def _fonts(text: str, face: Face, boxes: Sequence[str], right: bool) -> Iterator[tuple[str, str]]:
    """Yield the runs of one font each; an empty font name for a box.

    Blanks and signs between words that read from right to left stay in the font of these words.
    """
    run, font = "", ""
    whole = (letter if font_for(letter, face) else list(letter) for letter in letters_of(text))
    for letter in itertools.chain.from_iterable([part] if isinstance(part, str) else part for part in whole):
        boxed = FIRST_BOX <= ord(letter[0]) < FIRST_BOX + len(boxes)
        stays = right and font and not letter.isalnum() and has_all(font, list(map(ord, letter)))
        found = "" if boxed else font if stays else font_for(letter, face) or NAMES[face]
        if run and (boxed or found != font or not font):
            yield font, run
            run = ""
        run, font = run + letter, found
    if run:
        yield font, run


def _is_complex(character: str) -> bool:
    code = ord(character)
    return (
        code > 0xFFFF
        or unicodedata.category(character)[0] == "M"
        or code >= COMPLEX[0].start
        and any(code in part for part in COMPLEX)
    )


def _shape(text: str, font: str, right: bool) -> tuple[Glyph, ...]:
    if uharfbuzz is None:
        return _unshaped(text, font, right)
    buffer = uharfbuzz.Buffer()
    buffer.add_str(text)
    buffer.guess_segment_properties()
    buffer.direction = "rtl" if right else "ltr"
    uharfbuzz.shape(_harfbuzz_font(font), buffer)
    infos, places = buffer.glyph_infos, buffer.glyph_positions
    starts = sorted({info.cluster for info in infos})
    ends = dict(zip(starts, [*starts[1:], len(text)], strict=True))
    glyphs, seen = [], set()
    for info, place in zip(infos, places, strict=True):
        meant = "" if info.cluster in seen else text[info.cluster : ends[info.cluster]]
        seen.add(info.cluster)
        glyphs.append(Glyph(info.codepoint, place.x_offset, place.y_offset, place.x_advance, meant))
    return tuple(glyphs)


def _unshaped(text: str, font: str, right: bool) -> tuple[Glyph, ...]:
    face = pdfmetrics.getFont(font).face
    glyphs = [
        Glyph(face.charToGlyph.get(ord(c), 0), 0, 0, float(face.getCharWidth(ord(c))), c)
        for c in text
        if c not in JOINERS
    ]
    return tuple(reversed(glyphs) if right else glyphs)


@lru_cache(maxsize=64)
def _harfbuzz_font(name: str) -> Any:
    font = uharfbuzz.Font(uharfbuzz.Face(uharfbuzz.Blob.from_file_path(font_file(name))))
    font.scale = (EM, EM)
    return font


def glyphs_of(run: Run) -> Sequence[Glyph]:
    """Return the glyphs of any run that is not a box."""
    return run.glyphs or _unshaped(run.text, run.font, False)


def draw_line(
    canvas: Canvas, x: float, y: float, text: str, face: Face, size: float, ink: str, right: bool = False
) -> float:
    """Print one line of text, font by font; return where it ends."""
    for run in set_line(text, face, right):
        wide = run_width(run, size)
        if run.boxed:
            _draw_box(canvas, x, y, run, size, wide)
        else:
            canvas.setFillColor(HexColor(ink))
            canvas.setFont(run.font, size)
            if run.glyphs:
                _draw_glyphs(canvas, x, y, run, size)
            else:
                canvas.drawString(x, y, run.text)
        x += wide
    return x


def _draw_box(canvas: Canvas, x: float, y: float, run: Run, size: float, wide: float) -> None:
    canvas.saveState()
    canvas.setLineWidth(0.4)
    canvas.setStrokeColor(HexColor("#8a929b"))
    canvas.setFillColor(HexColor("#5b646e"))
    canvas.rect(x + size * 0.08, y - size * 0.18, wide - size * 0.16, size * 0.86)
    canvas.setFont(run.font, size * 0.62)
    canvas.drawString(x + size * 0.2, y, run.text)
    canvas.restoreState()


def _draw_glyphs(canvas: Canvas, x: float, y: float, run: Run, size: float) -> None:
    """Draw shaped letters together with the text for copying (ISO 32000-1, 14.9.4).

    Letters that read from left to right are marked together, others one by one, because PDF viewers expect page order.
    """
    face = pdfmetrics.getFont(run.font).face
    right = any(unicodedata.bidirectional(c) in ("R", "AL") for c in run.text)
    if not right:
        canvas.addLiteral(_actual_text(run.text))
    for glyph in run.glyphs:
        code = (FIRST_PRIVATE if glyph.number < PRIVATE else 0xF0000) + glyph.number
        face.charToGlyph[code] = glyph.number
        face.charWidths[code] = (
            _harfbuzz_font(run.font).get_glyph_h_advance(glyph.number) if uharfbuzz else glyph.advance
        )
        if right:
            canvas.addLiteral(_actual_text(glyph.text))
        canvas.drawString(x + glyph.x * size / EM, y + glyph.y * size / EM, chr(code))
        if right:
            canvas.addLiteral("EMC")
        x += glyph.advance * size / EM
    if not right:
        canvas.addLiteral("EMC")


def _actual_text(text: str) -> str:
    return f"/Span <</ActualText <FEFF{text.encode('utf-16-be', 'replace').hex().upper()}>>> BDC"
