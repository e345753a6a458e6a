"""Text of any script in the PDF: joined, ordered, extractable, and never markup."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import FakeRun, Line

from llmjobs.make_report import make_report
from llmjobs.report.pdf.styles import BODY, QUESTION
from llmjobs.report.pdf.text_flowable import Span, Text, break_spans
from llmjobs.report.text.lettering import line_outline
from llmjobs.report.text.shaping import is_right_to_left, set_line, text_width
from llmjobs.report.text.visible import visible

SCRIPTS = {
    "Chinese": "哪一个答案是正确的？",
    "Japanese": "正しい答えはどれですか",
    "Korean": "어느 것이 맞습니까",
    "Arabic": "ما هي عاصمة فرنسا",
    "Hebrew": "מהי בירת ישראל",
    "Thai": "คำตอบที่ถูกต้องคือข้อใด",
    "Hindi": "सही उत्तर कौन सा है",
    "Bengali": "সঠিক উত্তর কোনটি",
    "Tamil": "சரியான பதில் எது",
    "Russian": "Какой ответ верен",
    "Greek": "Ποια είναι η σωστή",
    "emoji": "grin 😀 party [party popper]",
    "unknown": "Tibetan U+0F40",
    "markup": "<b>not bold</b> & &amp; <script>alert(1)</script>",
    "controls": "bell \\x07 escape \\x1b end",
    "formula": '=HYPERLINK("http://example.org")',
}
GIVEN = SCRIPTS | {"emoji": "grin 😀 party 🎉", "unknown": "Tibetan ཀ", "controls": "bell \x07 escape \x1b end"}


def test_every_script_can_be_read_back(tmp_path: Path) -> None:
    if not shutil.which("pdftotext"):
        pytest.skip("pdftotext is not installed (poppler-utils)")
    pytest.importorskip("uharfbuzz")
    pytest.importorskip("bidi")

    def wrong(record: Line) -> Line:
        return record | {"prediction": "ABCD"[("ABCD".index(record["gold"]) + 1) % 4], "correct": False}

    given = list(GIVEN.values())
    texts = ["\n".join(given[place : place + 2]) for place in range(0, len(given), 2)]
    run = FakeRun(
        skills={"模型": 0.5, "نموذج": 0.2},
        subjects=("سؤال",),
        questions=len(texts),
        text=lambda subject, number: texts[number],
        change=wrong,
    ).write(tmp_path / "run")
    made = make_report([run], tmp_path / "out" / "report.pdf")
    text = subprocess.run(["pdftotext", "-layout", made.pdf, "-"], check=True, capture_output=True, text=True).stdout
    plain = "".join(c for c in text if c not in "\u202a\u202b\u202c\u202d\u202e\u200e\u200f")
    for name, expected in SCRIPTS.items():
        assert expected in plain, name
    assert "模型" in plain
    assert "نموذج" in plain


def printed(text: str, right: bool = False) -> str:
    """The letters of the line from left to right."""
    return "".join(
        "".join(glyph.text for glyph in run.glyphs) if run.glyphs else run.text
        for run in set_line(text, "regular", right)
    )


def test_arabic_letters_take_the_form_their_neighbours_ask_for() -> None:
    pytest.importorskip("uharfbuzz")
    (alone,), (word,) = set_line("ب", "regular"), set_line("ببب", "regular")
    assert len({glyph.number for glyph in word.glyphs} | {alone.glyphs[0].number}) == 4, "isolated, first, middle, last"
    (salam,) = set_line("سلام", "regular")
    assert "لا" in [glyph.text for glyph in salam.glyphs], "lam and alef are one shape"


def test_letters_of_india_and_thailand_are_stacked() -> None:
    pytest.importorskip("uharfbuzz")
    (hindi,) = set_line("क्षि", "regular")
    assert len(hindi.glyphs) < 4, "a conjunct is one shape"
    (thai,) = set_line("ที่", "regular")
    assert len({glyph.y for glyph in thai.glyphs}) + len({glyph.number for glyph in thai.glyphs}) > 3


def test_right_to_left_lines_are_reversed_but_numbers_are_not() -> None:
    pytest.importorskip("bidi")
    assert printed("אבג 123") == "123 גבא"
    assert printed("abc אבג def") == "abc גבא def"
    assert printed("אבג 123", right=True) == "123 גבא"
    assert printed("plain") == "plain"
    assert is_right_to_left("12 אב")
    assert not is_right_to_left("a אב")


def test_a_name_that_reads_to_the_left_is_one_run_of_letters() -> None:
    pytest.importorskip("bidi")
    assert [run.font for run in set_line("نموذج-عربي", "regular")] == ["Fallback-DejaVuSans"]


@given(st.text(alphabet=st.characters(exclude_categories=("Cs", "Cf", "Co", "Cn")), max_size=60))
def test_a_line_keeps_every_letter_that_a_font_has(text: str) -> None:
    line = visible(text, keep_lines=False)
    shown = printed(line)
    swapped = str.maketrans("()[]{}<>«»‹›", "([" * 6)
    for character in set(line):
        if character.isalnum() and set_line(character, "regular")[0].text == character:
            assert character in shown.translate(swapped) or character in shown


@given(st.text(max_size=80))
def test_any_text_is_a_paragraph_and_a_line_fits(text: str) -> None:
    block = Text(text, QUESTION, auto=True)
    width, height = block.wrap(120, 1000)
    assert width == 120
    assert height > 0
    for line in block.lines:
        assert line.width <= 120 + 0.01 or sum(len(span.text) for span in line.spans) <= 8
    line_outline(visible(text, keep_lines=False), "bold")


def test_a_line_breaks_at_blanks_and_joints_and_never_within_a_letter() -> None:
    lines = ["".join(s.text for s in spans) for spans, _ in break_spans([Span("org/some-model-007 right")], 9, 50)]
    assert lines == ["org/some-", "model-007", "right"]
    thai = [spans[0].text for spans, _ in break_spans([Span("ที่นี่ที่นี่ที่นี่")], 9, 20)]
    assert len(thai) > 1
    assert all(line[0] in "ทน" for line in thai), "no line starts with a mark"


def test_long_text_breaks_over_pages() -> None:
    block = Text("word " * 2000, BODY)
    first, second = block.split(200, 300)
    assert first.wrap(200, 300)[1] <= 300
    assert len(first.lines) + len(second.lines) == len(block.lines)
    assert block.split(200, 10) == []


def test_lines_can_be_limited() -> None:
    block = Text("word " * 200, BODY, most_lines=3)
    block.wrap(100, 1000)
    assert len(block.lines) == 3
    assert block.lines[-1].spans[-1].text.endswith("…")
    assert block.lines[-1].width <= 100


def test_what_no_font_has_is_named_or_is_a_box_with_its_code() -> None:
    assert printed("a 🚀 b") == "a [rocket] b"
    assert printed("👩🏽\u200d🔬") == "[woman][microscope]"
    assert printed("🇩🇪") == "DE"
    (run,) = set_line("\u0f40", "regular")
    assert (run.text, run.boxed) == ("U+0F40", True)
    assert set_line("\u202e", "regular")[0].boxed


def test_letters_are_as_wide_in_pixels_as_on_paper() -> None:
    for text in ("Llama-3.2", "通义", "मॉडल", "نموذج", "🚀"):
        outline = line_outline(text, "regular")
        assert outline is not None
        assert outline.get_extents().x1 <= text_width(text, "regular", 1000) + 60
