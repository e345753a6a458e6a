"""Any file of rows is rows or one line that names it, in bounded time and memory."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjobs.benchmarks.mmlu import MMLU
from llmjobs.benchmarks.registry import benchmark_class, names
from llmjobs.benchmarks.rows import load_rows
from llmjobs.errors import DataError
from llmjobs.manifest.eval import BenchmarkSpec

ROW = {"question": "Q", "choices": ["a", "b", "c", "d"], "answer": 1, "subject": "astronomy"}
JUNK = st.sampled_from([
    None, True, -1, 4, 0.5, 10**30, float("nan"), "", "A", "²", "x" * 300, "a\0b", "\ud800", [], {}, ["a"], [None] * 4,
    ["a", "b", "c", 4], {"text": ["a"], "label": ["A"]}, [["a"]], "[" * 2000, "\x1b[2J",
])  # fmt: skip
KEYS = st.sampled_from(
    ["question", "choices", "answer", "subject", "choice0", "ctx", "endings", "label", "gold", "sol1"]
)
ROWS = st.lists(st.dictionaries(KEYS, JUNK, max_size=6).map(lambda values: ROW | values) | JUNK, max_size=4)
CELLS = st.sampled_from(
    ["a", "", '"', '""', ",", "\n", "\r", "\t", "\0", "é", "x" * 2000, "0", "A", "E", "\ufeff", "'"]
)


def loads(path: Path) -> None:
    began = time.process_time()
    try:
        found = load_rows(MMLU, "astronomy", "test", data=str(path))
    except DataError as error:
        line = str(error)
        assert line.isprintable() and path.name in line and len(line) < 1500
    else:
        assert all(set(row) == {"question", "choices", "answer"} for row in found.rows)
    assert time.process_time() - began < 10


@settings(max_examples=60)
@given(st.sampled_from(["csv", "tsv", "json", "jsonl", "ndjson", "parquet"]), st.binary(max_size=150))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, end: str, content: bytes) -> None:
    path = tmp_path_factory.mktemp("rows") / f"test.{end}"
    path.write_bytes(content)
    loads(path)


@settings(max_examples=60)
@given(ROWS, st.booleans())
def test_any_values_in_json(tmp_path_factory: pytest.TempPathFactory, rows: list[Any], listed: bool) -> None:
    path = tmp_path_factory.mktemp("rows") / ("test.json" if listed else "test.jsonl")
    path.write_text(json.dumps(rows) if listed else "".join(json.dumps(row) + "\n" for row in rows))
    loads(path)


@given(st.lists(CELLS, max_size=40).map("".join), st.sampled_from(["csv", "tsv"]))
def test_any_cells(tmp_path_factory: pytest.TempPathFactory, text: str, end: str) -> None:
    path = tmp_path_factory.mktemp("rows") / f"test.{end}"
    path.write_text("question,choice0,choice1,choice2,choice3,answer\n" + text, encoding="utf-8", newline="")
    loads(path)


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([ROW] * 20), stream)
    return stream.getvalue()


WHOLE = parquet()


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_parquet(tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE)
    for at, value in changes:
        data[at] = value
    path = tmp_path_factory.mktemp("rows") / "test.parquet"
    path.write_bytes(data)
    loads(path)


@pytest.mark.parametrize("name", [name for name in names() if benchmark_class(name).hub])
@settings(max_examples=10)
@given(rows=st.lists(st.dictionaries(KEYS, JUNK, max_size=6), min_size=1, max_size=3))
def test_any_row_for_any_benchmark(tmp_path_factory: pytest.TempPathFactory, name: str, rows: list[Any]) -> None:
    found = benchmark_class(name)
    path = tmp_path_factory.mktemp("rows") / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        load_rows(found, found.subjects[0], "test", data=str(path))
    except DataError as error:
        assert str(error).isprintable()


@given(JUNK, JUNK, JUNK)
def test_any_row_for_a_benchmark_of_your_own(
    tmp_path_factory: pytest.TempPathFactory, question: Any, choices: Any, answer: Any
) -> None:
    path = tmp_path_factory.mktemp("rows") / "my.jsonl"
    path.write_text(json.dumps({"q": question, "c": choices, "a": answer}) + "\n")
    for wanted in ("c", None):
        keys = {"question": "q", "choices": wanted, "answer": "a"}
        spec = BenchmarkSpec.model_validate({"file": str(path), "num_fewshot": 0, **keys})
        try:
            load_rows(spec.benchmark(), "all", "test", data=str(path))
        except DataError as error:
            assert str(error).isprintable()
