"""A person's own benchmark: columns by name, both ways to answer, and a clear line for what does not fit."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjobs.benchmarks.base import Benchmark, Options
from llmjobs.benchmarks.custom import Columns, Custom, custom_class, normalise
from llmjobs.benchmarks.rows import RowSet, load_rows
from llmjobs.errors import DataError
from llmjobs.manifest.eval import BenchmarkSpec

CSV = """topic,prompt,o1,o2,o3,right
birds,Which bird runs?,ostrich,swift,wren,A
birds,Which bird dives?,hen,penguin,,o
"""
MANIFEST = {"file": "my.csv", "question": "prompt", "choices": ["o1", "o2", "o3"], "answer": "right"}


def load(path: Path, split: str = "test", shots: int = 0, **keys: Any) -> tuple[Benchmark, RowSet]:
    spec = BenchmarkSpec.model_validate({**MANIFEST, **keys, "file": str(path), "num_fewshot": shots})
    benchmark = spec.benchmark()(spec.options())
    return benchmark, load_rows(type(benchmark), "all", split, data=str(path))


def test_multiple_choice_from_csv(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text(CSV.replace(",o\n", ",penguin\n"), encoding="utf-8")
    benchmark, rows = load(path, shots=1)
    assert rows.rows == [{"question": "Which bird dives?", "choices": ["hen", "penguin"], "answer": 1}]
    _, shown = load(path, "fewshot", shots=1)
    doc = benchmark.doc(rows.rows[0], 0, "all")
    text = benchmark.shots(shown.rows, "all").render(1) + doc.questions[0]
    assert text == (
        "Question: Which bird runs?\nA. ostrich\nB. swift\nC. wren\nAnswer: A\n\n"
        "Question: Which bird dives?\nA. hen\nB. penguin\nAnswer:"
    )
    assert doc.continuations == (" A", " B") and doc.gold == "B"
    assert benchmark.grade(doc, [-2.0, -1.0]).metrics == {"acc": 1.0}
    assert benchmark.output_type("all") == "loglikelihood"


def test_options_texts_are_compared_on_request(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text(CSV.replace(",o\n", ",B\n"), encoding="utf-8")
    benchmark, rows = load(path, prompt="texts")
    doc = benchmark.doc(rows.rows[0], 0, "all")
    assert doc.questions == ("Question: Which bird runs?\nAnswer:",)
    assert doc.continuations == (" ostrich", " swift", " wren")
    assert benchmark.grade(doc, [-3.0, -2.0, -4.0]).metrics == {"acc": 0.0, "acc_norm": 0.0}


@pytest.mark.parametrize("end", ["jsonl", "parquet"])
def test_a_list_column(end: str, tmp_path: Path) -> None:
    rows = [{"q": "One?", "opts": ["1", "2"], "key": "A"}, {"q": "Two?", "opts": ["1", "2", "3"], "key": "B"}]
    path = tmp_path / f"my.{end}"
    if end == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    _, found = load(path, question="q", choices="opts", answer="key")
    assert [row["answer"] for row in found.rows] == [0, 1]


def test_short_answers(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text('{"q": "Capital of Norway?", "a": "Oslo"}\n{"q": "2 + 2?", "a": ["4", "four"]}\n', encoding="utf-8")
    benchmark, rows = load(path, question="q", choices=None, answer="a")
    docs = [benchmark.doc(row, at, "all") for at, row in enumerate(rows.rows)]
    assert benchmark.output_type("all") == "generate_until" and docs[0].continuations == ()
    assert benchmark.grade_text(docs[0], " The  Oslo. \nQuestion:").correct
    assert benchmark.grade_text(docs[1], "Four!").correct
    assert not benchmark.grade_text(docs[1], "5").correct
    assert benchmark.grade_text(docs[0], "  ").prediction is None
    assert type(benchmark).primary_metric == "exact_match"


WRONG = {
    "question": (
        {"question": "promt"},
        "my.csv:2: not a row of my (question: there is no column 'promt' among topic, prompt,",
    ),
    "nearest": ({"question": "promt"}, "did you mean 'prompt'?"),
    "choices": ({"choices": ["o1", "o9"]}, "choices: there is no column 'o9' among"),
    "answer": (
        {"answer": "rihgt"},
        "answer: there is no column 'rihgt' among topic, prompt, o1, o2, o3, right; did you mean",
    ),
    "no list": ({"choices": "o1"}, "choices: column 'o1' does not contain a JSON list: 'ostrich'"),
    "no option": (
        {},
        "my.csv:3: not a row of my (answer: 'o' is not a letter, an index from 0 or the text of one of 2 options",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_columns_are_one_clear_line(case: str, tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text(CSV, encoding="utf-8")
    keys, message = WRONG[case]
    with pytest.raises(DataError) as caught:
        load(path, **keys)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_answer_that_could_be_two_options_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("prompt,o1,o2,o3,right\nHow many?,2,1,3,2\n", encoding="utf-8")
    with pytest.raises(DataError, match="'2' could be more than one option; write A to C"):
        load(path)


def test_too_few_rows_for_the_shots(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text(CSV.replace(",o\n", ",B\n"), encoding="utf-8")
    with pytest.raises(DataError, match="no test rows"):
        load(path, shots=2)


def test_unknown_prompt_form() -> None:
    with pytest.raises(ValueError, match="prompt: 'mmlu' is not one of letters, texts"):
        custom_class("my", Columns("q", "a"), 0)(Options(0, "mmlu", "loglikelihood"))
    assert Custom.name == "custom", "a bound class leaves the others alone"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The  Eiffel Tower.", "eiffel tower"), ("“Ångström”", "ångström"), ("ﬁve", "five"), ("a", "a"), ("+", "+"),
        ("An apple, a pear", "apple pear"), ("U.S.", "us"),
    ],
)  # fmt: skip
def test_normalisation(text: str, plain: str) -> None:
    assert normalise(text) == plain


@given(st.text())
def test_normalising_never_makes_text_vanish(text: str) -> None:
    assert bool(normalise(text)) == bool(text.strip())
