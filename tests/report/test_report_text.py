"""Text of any script in the PDF: joined, ordered, extractable, and never markup."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reportlab.platypus import Paragraph
from run_folders import FakeRun, Line

from llmjobs.report.job import make_report
from llmjobs.report.pdf.foreign import ForeignText, wrap_line
from llmjobs.report.pdf.styles import BODY
from llmjobs.report.text.arabic import join_letters
from llmjobs.report.text.direction import is_right_to_left, printed_order
from llmjobs.report.text.extraction import meant
from llmjobs.report.text.fonts import split_runs, text_width
from llmjobs.report.text.markup import markup
from llmjobs.report.text.visible import visible

SCRIPTS = {
    "Chinese": "哪一个答案是正确的？",
    "Japanese": "正しい答えはどれですか",
    "Korean": "어느 것이 맞습니까",
    "Arabic": "ما هي عاصمة فرنسا",
    "Hebrew": "מהי בירת ישראל",
    "Russian": "Какой ответ верен",
    "Greek": "Ποια είναι η σωστή",
    "emoji": "grin 😀 party U+1F389",
    "markup": "<b>not bold</b> & &amp; <script>alert(1)</script>",
    "controls": "bell \\x07 escape \\x1b end",
    "formula": '=HYPERLINK("http://example.org")',
}
GIVEN = SCRIPTS | {"emoji": "grin 😀 party 🎉", "controls": "bell \x07 escape \x1b end"}


def test_every_script_can_be_read_back(tmp_path: Path) -> None:
    if not shutil.which("pdftotext"):
        pytest.skip("pdftotext is not installed (poppler-utils)")

    def wrong(record: Line) -> Line:
        return record | {"prediction": "ABCD"[("ABCD".index(record["gold"]) + 1) % 4], "correct": False}

    texts = list(GIVEN.values())
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


def test_arabic_letters_take_the_form_their_neighbours_ask_for() -> None:
    assert join_letters("بيت") == "\ufe91\ufef4\ufe96"
    assert join_letters("دار") == "\ufea9\ufe8d\ufead"
    assert join_letters("سلام") == "\ufeb3\ufefc\ufee1"
    assert join_letters("latin 12") == "latin 12"
    assert "".join(meant(ord(c)) for c in join_letters("سلام")) == "سلام"


def test_right_to_left_lines_are_reversed_but_numbers_are_not() -> None:
    assert printed_order("אבג 123") == "123 גבא"
    assert printed_order("abc אבג def") == "abc גבא def"
    assert printed_order("(אב)") == "(בא)"
    assert printed_order("plain") == "plain"
    assert is_right_to_left("12 אב")
    assert not is_right_to_left("a אב")


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=60))
def test_order_keeps_every_character(text: str) -> None:
    line = visible(text, keep_lines=False)
    swapped = str.maketrans("()[]{}<>«»‹›", "([" * 6)
    assert sorted(printed_order(line).translate(swapped)) == sorted(line.translate(swapped))


@given(st.text(max_size=80))
def test_any_text_is_a_paragraph_and_a_line_fits(text: str) -> None:
    Paragraph(markup(text), BODY)
    block = ForeignText(text, size=9)
    width, height = block.wrap(120, 1000)
    assert width == 120
    assert height > 0
    for line in wrap_line(visible(text).replace("\n", " "), "regular", 9, 120):
        assert text_width(line, "regular", 9) <= 120 or len(line) == 1


def test_long_text_breaks_over_pages() -> None:
    block = ForeignText("word " * 2000, size=9)
    first, second = block.split(200, 300)
    assert first.wrap(200, 300)[1] <= 300
    assert len(first.lines) + len(second.lines) == len(block.lines)
    assert block.split(200, 10) == []


def test_what_no_font_has_is_a_box_with_its_code() -> None:
    (run,) = split_runs("\U0001f389", "regular")
    assert (run.text, run.boxed) == ("U+1F389", True)
    assert split_runs("\u202e", "regular")[0].boxed
