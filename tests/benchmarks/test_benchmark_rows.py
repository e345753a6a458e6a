"""Rows in every common layout are read; anything else gives one clear line."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmjobs.benchmarks import rows
from llmjobs.benchmarks.mmlu import MMLU
from llmjobs.benchmarks.rows import load_rows
from llmjobs.errors import DataError

ROWS = [
    {"question": "Which star is nearest to Earth?", "choices": ["The Sun", "Vega", "Sirius", "Rigel"], "answer": 0},
    {"question": 'Say "two, three"\nand a line', "choices": ["1", "2", "3", "é ß 水"], "answer": 3},
]
Layout = Callable[[Path], None]


def write_csv(path: Path, header: list[str] | None, rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerows([header, *rows] if header else rows)


def original(folder: Path) -> None:
    cells = [[r["question"], *r["choices"], "ABCD"[r["answer"]]] for r in ROWS]
    write_csv(folder / "test" / "astronomy_test.csv", None, cells)


def with_header(folder: Path) -> None:
    header = ["question", "choice0", "choice1", "choice2", "choice3", "answer"]
    write_csv(
        folder / "test" / "astronomy_test.csv", header, [[r["question"], *r["choices"], r["answer"]] for r in ROWS]
    )


def jsonl(folder: Path) -> None:
    (folder / "astronomy").mkdir()
    (folder / "astronomy" / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS), encoding="utf-8")


def json_list(folder: Path) -> None:
    (folder / "test").mkdir()
    (folder / "test" / "astronomy.json").write_text(json.dumps(ROWS), encoding="utf-8-sig")


def one_file_with_subjects(folder: Path) -> None:
    rows = [{**r, "subject": s} for r in ROWS for s in ("anatomy", "astronomy")]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def hub_parquet(folder: Path) -> None:
    (folder / "astronomy").mkdir()
    for at, row in enumerate(ROWS):
        table = pa.Table.from_pylist([{**row, "subject": "astronomy"}])
        pq.write_table(table, folder / "astronomy" / f"test-0000{at}-of-00002.parquet")


@pytest.mark.parametrize("layout", [original, with_header, jsonl, json_list, one_file_with_subjects, hub_parquet])
def test_every_layout_gives_the_same_rows_and_hash(layout: Layout, tmp_path: Path) -> None:
    layout(tmp_path)
    found = load_rows(MMLU, "astronomy", "test", data=str(tmp_path))
    assert found.rows == ROWS
    assert found.hash == "7873279e6f4e6fc748f9b26590e3f8b32ebdabd8293915c81e9fd8d47fa12ecc"
    assert found.revision is None


def test_a_single_file(tmp_path: Path) -> None:
    original(tmp_path)
    path = tmp_path / "test" / "astronomy_test.csv"
    assert load_rows(MMLU, "astronomy", "test", data=str(path)).rows == ROWS
    with pytest.raises(DataError, match="one file contains only the questions"):
        load_rows(MMLU, "astronomy", "fewshot", data=str(path))


def test_dev_rows_are_the_shots(tmp_path: Path) -> None:
    cells = [[r["question"], *r["choices"], "ABCD"[r["answer"]]] for r in ROWS]
    write_csv(tmp_path / "dev" / "astronomy_dev.csv", None, cells)
    assert load_rows(MMLU, "astronomy", "fewshot", data=str(tmp_path)).rows == ROWS


BAD = {
    "unknown letter": ("test.csv", "q,a,b,c,d,E\n", ":1: not a row of mmlu (answer 'E' is not one of"),
    "missing cell": ("test.csv", "q,a,b,c,d,A\nq,a,b\n", ":2: 3 cells, but 6 are expected"),
    "missing column": (
        "test.jsonl",
        '{"question": "q", "answer": 1}\n',
        ":1: there is no column 'choice0' among question, answer",
    ),
    "not an object": ("test.jsonl", "[1]\n", ":1: a row must be an object"),
    "not JSON": ("test.jsonl", '{"question": 1}\n{"question": \n', ":2: is not JSON"),
    "deep JSON": ("test.jsonl", "[" * 100_000 + "\n", ":1: cannot be read as JSON"),
    "deep value": (
        "test.jsonl",
        '{"question": "q", "choices": ["a","b","c","d"], "answer": ' + "[" * 900 + "]" * 900 + "}\n",
        ":1: not a row of mmlu",
    ),
    "long number": ("test.jsonl", '{"question": ' + "9" * 5000 + "}\n", ":1: cannot be read as JSON"),
    "half a character": (
        "test.jsonl",
        '{"question": "\\ud800", "choices": ["a","b","c","d"], "answer": 1}\n',
        ":1: not a row of mmlu",
    ),
    "no list": ("test.json", '{"a": 1}', "does not contain a list"),
    "open quote": ("test.csv", 'q,a,b,c,d,A\n"q,a,b', ":2: is not CSV"),
    "empty": ("test.jsonl", "", "no test rows of mmlu astronomy"),
    "not parquet": ("test.parquet", "PAR1 nothing PAR1", "cannot be read as parquet"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line_with_file_and_line(case: str, tmp_path: Path) -> None:
    name, text, message = BAD[case]
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_rows(MMLU, "astronomy", "test", data=str(tmp_path))
    line = str(caught.value)
    assert message in line and "\n" not in line and str(tmp_path) in line and len(line) < 600


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_bytes(b"caf\xe9,a,b,c,d,A\n")
    with pytest.raises(DataError, match=r"test\.csv: is not UTF-8 \(byte 3"):
        load_rows(MMLU, "astronomy", "test", data=str(tmp_path))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder or file"):
        load_rows(MMLU, "astronomy", "test", data=str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"no rows of mmlu astronomy test; looked for test/astronomy_test\.\*"):
        load_rows(MMLU, "astronomy", "test", data=str(tmp_path))


def test_two_files_for_one_subject(tmp_path: Path) -> None:
    for end in ("csv", "jsonl"):
        (tmp_path / f"test.{end}").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="keep one of them"):
        load_rows(MMLU, "astronomy", "test", data=str(tmp_path))


def test_a_pipe_or_device_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "test.csv")
    with pytest.raises(DataError, match="is not a regular file"):
        rows.read_rows(tmp_path / "test.csv")
    with pytest.raises(DataError, match="cannot read this kind of file"):
        rows.read_rows(Path("/dev/zero"))


def test_large_files_are_refused_before_reading(tmp_path: Path) -> None:
    for name, size in (("big.csv", rows.MAX_FILE_BYTES + 1), ("big.json", rows.MAX_JSON_BYTES + 1)):
        path = tmp_path / name
        with path.open("wb") as stream:
            stream.truncate(size)
        with pytest.raises(DataError, match="MiB is more than the"):
            rows.read_rows(path)


def test_parquet_bombs(tmp_path: Path) -> None:
    path = tmp_path / "many.parquet"
    pq.write_table(pa.table({"question": pa.array(["x"]).dictionary_encode().take(pa.array([0] * 1_000_001))}), path)
    with pytest.raises(DataError, match="1,000,001 rows"):
        rows.read_rows(path)
    path = tmp_path / "wide.parquet"
    large = pa.array(["x" * (rows.MAX_CELL_CHARS + 1)]).dictionary_encode()
    pq.write_table(pa.table({"question": large.take(pa.array([0] * 5000))}), path)
    assert path.stat().st_size < 2 * rows.MAX_CELL_CHARS
    with pytest.raises(DataError, match="a cell of about 1 MiB is too large"):
        rows.read_rows(path)
    path = tmp_path / "long.parquet"
    half = pa.array(["x" * (rows.MAX_CELL_CHARS // 2)]).dictionary_encode()
    pq.write_table(pa.table({"question": half.take(pa.array([0] * 5000))}), path)
    with pytest.raises(DataError, match="unpacks to more than 1,0"):
        rows.read_rows(path)


def test_a_long_csv_cell_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cell.csv"
    path.write_text('question\n"' + "x" * (rows.MAX_CELL_CHARS + 5) + '"\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"cell\.csv:2: is not CSV \(field larger than field limit"):
        rows.read_rows(path)
