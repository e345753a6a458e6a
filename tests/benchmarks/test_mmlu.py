"""MMLU's prompts byte for byte, its rows in every published form, and the strict reading of letters."""

import hashlib
from typing import Any

import pytest

from llmjobs.benchmarks.base import Options
from llmjobs.benchmarks.mmlu import MMLU
from llmjobs.benchmarks.multiple_choice import read_letter

ROW = {
    "question": " Which metal is liquid at room temperature? ",
    "choices": ["Iron", "Mercury", "Tin", "Zinc"],
    "answer": 1,
}
SHOT = {"question": "How many moons has Mars?", "choices": ["0", "1", "2", "3"], "answer": 2}

LM_EVAL = """The following are multiple choice questions (with answers) about abstract algebra.

How many moons has Mars?
A. 0
B. 1
C. 2
D. 3
Answer: C

Which metal is liquid at room temperature?
A. Iron
B. Mercury
C. Tin
D. Zinc
Answer:"""
ORIGINAL = (
    LM_EVAL.replace("about abstract", "about  abstract")
    .replace("\nWhich metal", "\n Which metal")
    .replace("temperature?\n", "temperature? \n")
)
COURSE = " Which metal is liquid at room temperature? \n\nA. Iron\nB. Mercury\nC. Tin\nD. Zinc\n\nAnswer:"


def render(prompt: str, shots: int, row: dict[str, Any] = ROW) -> str:
    benchmark = MMLU(Options(shots, prompt, "loglikelihood"))
    doc = benchmark.doc(MMLU.canonical(row), 0, "abstract_algebra")
    return benchmark.shots([MMLU.canonical(SHOT)], "abstract_algebra").render(shots) + doc.questions[0]


def test_prompts_byte_for_byte() -> None:
    assert render("lm-eval", 1) == LM_EVAL
    assert render("original", 1) == ORIGINAL
    assert render("course", 0) == COURSE
    assert "about  abstract algebra." in ORIGINAL, "the authors' script has two spaces there"


def test_zero_shots_keep_the_header() -> None:
    assert render("lm-eval", 0).startswith("The following are multiple choice questions (with answers) about abstract")
    assert "Mars" not in render("lm-eval", 0)


def test_every_subject_is_named_with_blanks() -> None:
    benchmark = MMLU(Options(0, "lm-eval", "loglikelihood"))
    headers = "".join(benchmark.shots([], subject).description for subject in MMLU.subjects)
    assert hashlib.sha256(headers.encode()).hexdigest() == HEADERS
    assert "about high school us history.\n\n" in headers


HEADERS = "33d0f2ff19744d1497a2bd89d250a6e896c2adaed84464b4eee8bc5aec75e942"


def test_subjects_and_categories() -> None:
    assert len(MMLU.subjects) == len(set(MMLU.subjects)) == 57
    assert {k: len(v) for k, v in MMLU.categories.items()} == {
        "stem": 19,
        "humanities": 13,
        "social_sciences": 12,
        "other": 13,
    }


@pytest.mark.parametrize(
    "raw",
    [
        {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 2, "subject": "astronomy"},
        {"question": "q", "choice0": "a", "choice1": "b", "choice2": "c", "choice3": "d", "answer": "2"},
        {"question": "q", "A": "a", "B": "b", "C": "c", "D": "d", "answer": "C"},
    ],
)
def test_all_forms_give_one_row(raw: dict[str, Any]) -> None:
    assert MMLU.canonical(raw) == {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 2}


@pytest.mark.parametrize(
    "change", [{"answer": "E"}, {"answer": 4}, {"answer": None}, {"choices": ["a"]}, {"choices": [1, 2, 3, 4]}]
)
def test_rows_of_another_form_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="answer|choices"):
        MMLU.canonical(ROW | change)


def test_the_course_form_has_no_shots() -> None:
    with pytest.raises(ValueError, match="num_fewshot: the course form has no shots"):
        MMLU(Options(5, "course", "loglikelihood"))


def test_judging_by_loglikelihood() -> None:
    benchmark = MMLU(Options(0, "lm-eval", "loglikelihood"))
    doc = benchmark.doc(ROW, 0, "astronomy")
    right = benchmark.grade(doc, [-2.0, -1.0, -3.0, -4.0])
    assert (right.prediction, right.correct, right.metrics) == ("B", True, {"acc": 1.0})
    tie = benchmark.grade(doc, [-1.0, -1.0, -3.0, -4.0])
    assert (tie.prediction, tie.correct) == ("A", False), "a tie goes to the first, as argmax has it"


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        (" B", "B"), ("D", "D"), ("(C)", "C"), ('"A"', "A"), ("A.", "A"), ("B) two", "B"), ("[D]", "D"),
        ("\nC\n", "C"), ("A: because", "A"), ("‘B’", "B"), ("A's", None),
        ("The CorreCt answer", None), ("Because", None), ("b", None), ("E", None), ("", None), ("  ", None),
        ("A good question", None), ("Answer: B", None), ("((A", None), ("AB", None), ("C++", None), ("B-", None),
    ],
)  # fmt: skip
def test_letters_are_read_strictly(reply: str, letter: str | None) -> None:
    assert read_letter(reply) == letter


def test_a_reply_without_a_letter_is_unparsed_never_a() -> None:
    benchmark = MMLU(Options(0, "course", "generate_until"))
    doc = benchmark.doc(ROW | {"answer": 0}, 0, "astronomy")
    judged = benchmark.grade_text(doc, "The CorreCt")
    assert judged.prediction is None and not judged.correct and judged.metrics == {"acc": 0.0}
    assert benchmark.grade_text(doc, " A").correct
    assert benchmark.generation(doc).max_new_tokens == 1
