"""Logs of any tool, changed anywhere: a report or one line, never a traceback, never a wait."""

import copy
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import FakeRun
from test_readers import write_lm_eval

from llmjobs.errors import DataError, LlmjobsError
from llmjobs.make_report import make_report
from llmjobs.report.assemble import assemble
from llmjobs.report.blocks import file_name
from llmjobs.report.measure import Measures
from llmjobs.report.read.formats import read

SAMPLE = {
    "id": 1, "epoch": 1, "input": "Q", "choices": ["a", "b"], "target": "B", "metadata": {"subject": "s"},
    "output": {"choices": [{"message": {"content": "ANSWER: B"}}]}, "scores": {"choice": {"value": "C", "answer": "B"}},
}  # fmt: skip
LOG = {
    "version": 2, "status": "success", "eval": {"task": "t", "model": "hf/m", "task_args": {"fewshot": 1}},
    "samples": [SAMPLE, {**SAMPLE, "id": 2}, {**SAMPLE, "epoch": 2}], "results": {
        "scores": [{"name": "choice", "scorer": "choice", "reducer": "mean", "scored_samples": 2,
                    "metrics": {"accuracy": {"name": "accuracy", "value": 1.0}}}],
        "headline": {"scorer": "choice", "score": "choice", "metric": "accuracy"}, "completed_samples": 2,
    }, "stats": {"started_at": "2026-01-01T00:00:00", "completed_at": "x"},
}  # fmt: skip
SPEC = {"name": "mmlu:subject=s,model=m", "adapter_spec": {"model": "m", "max_train_instances": 5, "method": "x"}}
INSTANCE = {
    "id": "1",
    "input": {"text": "Q"},
    "references": [{"output": {"text": t}, "tags": ["correct"]} for t in "ab"],
}
PREDICTION = {"instance_id": "1", "predicted_text": " A", "mapped_output": "a", "stats": {"exact_match": 1}}
STATE = {"request_states": [{
    "instance": {**INSTANCE, "split": "test"}, "train_trial_index": 0, "output_mapping": {"A": "a", "B": "b"},
    "result": {"success": True, "completions": [{"text": " A"}]},
}]}  # fmt: skip
STAT = {"name": {"name": "exact_match", "split": "test"}, "count": 1, "sum": 1.0, "mean": 1.0}
ROW = {"model": "m", "id": 1, "pred": "A", "target": "A", "probabilities": [0.7, 0.3], "subject": "s", "question": "Q"}


def layouts(folder: Path) -> dict[str, Callable[[], Path]]:
    """An intact log for each reader; return what to read."""
    return {
        "run": lambda: FakeRun(questions=4, skills={"a": 1.0, "b": 0.0}, subjects=("x", "y")).write(folder / "run"),
        "lm-eval": lambda: write_lm_eval(folder, "org/one", 3),
        "inspect": lambda: dumped(folder / "log.json", LOG),
        "helm": lambda: helm(folder / "helm"),
        "helm-raw": lambda: helm_raw(folder / "helm"),
        "csv": lambda: table(folder / "t.csv"),
        "jsonl": lambda: dumped(folder / "t.jsonl", ROW, {**ROW, "id": 2}),
    }


def dumped(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def helm(folder: Path) -> Path:
    folder.mkdir()
    for name, value in (("run_spec", SPEC), ("instances", [INSTANCE]), ("display_predictions", [PREDICTION])):
        dumped(folder / f"{name}.json", value)
    return folder


def helm_raw(folder: Path) -> Path:
    folder.mkdir()
    lines = [{"instance_id": "1", "train_trial_index": 0, "stats": [STAT]}]
    files = (("run_spec", SPEC), ("scenario_state", STATE), ("per_instance_stats", lines), ("stats", [STAT]))
    for name, value in files:
        dumped(folder / f"{name}.json", value)
    return folder


def table(path: Path) -> Path:
    rows = [f"m,s,{number},{'ABCD'[number % 4]},{'abcd'[number % 3]},0.5,0.25,0.25" for number in range(8)]
    path.write_text("model,subject,id,gold,pred,prob_A,prob_B,prob_C\n" + "\n".join(rows))
    return path


JUNK = st.sampled_from([
    None, True, -1, 0, 0.5, 1e308, 10**400, float("nan"), float("inf"), "", "x", "²", "9" * 5000, "x" * 300,
    "../../up", "a\0b", "\x1b]52;c;QQ==\x07", "\u202e\u2066", "<b>&amp;</b>", "$x^2_$", "=1+1", "{{x}}", [], {}, [[]],
    [None], ["x", 3], [0.1, None], {"a": {"b": []}}, {"": ""}, [{}], ["\ud800"], [-1e308, 1e308],
])  # fmt: skip


CELLS = st.sampled_from(
    ["m", "A", "1", "", "²", "=1+1", "a\0b", '"', "\n", ",", "1e999", "nan", "[", "[1,", "\ufeff", "é"]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path in a value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def changed(value: Any, draw: Any) -> Any:
    """The value with a few of its parts replaced, removed or renamed."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        paths = places(value)
        if not paths:
            return copy.deepcopy(draw(JUNK))
        *parents, last = draw(st.sampled_from(paths))
        inner = value
        for step in parents:
            inner = inner[step]
        if draw(st.booleans()) and isinstance(inner, dict):
            del inner[last]
        else:
            inner[last] = copy.deepcopy(draw(JUNK))
    return value


def spoil(path: Path, draw: Any) -> None:
    """Change one file: its bytes, or the values in it."""
    kinds = (".json", ".jsonl", ".csv")
    files = sorted(p for p in ([path] if path.is_file() else path.rglob("*")) if p.suffix in kinds)
    file = draw(st.sampled_from(files))
    lines = file.read_text().splitlines()
    how = draw(st.sampled_from(["values", "values", "values", "bytes", "cut", "replaced"]))
    if how == "values":
        at = draw(st.integers(0, len(lines) - 1))
        if file.suffix == ".csv":
            cells = lines[at].split(",")
            cells[draw(st.integers(0, len(cells) - 1))] = draw(CELLS)
            lines[at] = ",".join(cells)
        else:
            lines[at] = json.dumps(changed(json.loads(lines[at]), draw))
        file.write_text("\n".join(lines) + "\n")
    elif how == "bytes":
        file.write_bytes(draw(st.binary(max_size=60)))
    elif how == "cut":
        file.write_bytes(file.read_bytes()[: draw(st.integers(0, file.stat().st_size))])
    else:
        file.write_text(
            draw(st.sampled_from(["[" * 100_000, "1" * 5000, '{"a":' * 5000, "null", '"x"', "[]", "{}", "[1]"]))
        )


def survives(path: Path, **options: Any) -> None:
    began = time.process_time()
    try:
        Measures(assemble(read(path), **options))
    except LlmjobsError as error:
        assert str(error).isprintable()
    assert time.process_time() - began < 20


@pytest.mark.parametrize("kind", ["run", "lm-eval", "inspect", "helm", "helm-raw", "jsonl", "csv"])
@settings(max_examples=60)
@given(data=st.data())
def test_a_changed_log_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    path = layouts(tmp_path_factory.mktemp("logs"))[kind]()
    spoil(path, data.draw)
    survives(path, common=data.draw(st.booleans()))


@given(st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.json", "samples_x.jsonl"]), st.binary(max_size=200))
def test_any_bytes_in_a_single_file(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(content)
    survives(path)


@given(st.lists(st.lists(CELLS, max_size=7), max_size=6))
def test_any_cells_in_a_table(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    path = tmp_path_factory.mktemp("cells") / "t.csv"
    path.write_text("model,id,pred,target,prob_A,prob_B\n" + "\n".join(",".join(row) for row in rows), newline="")
    survives(path)


HARD = (
    "x" * 300,
    "$\\frac$",
    "../../up",
    "a\0b\x1b[2J",
    "<script>&",
    "\u202eabc",
    "=cmd|'/c calc'!A1",
    "\ud800",
    "水\t\r\n",
)


@pytest.mark.parametrize("at", range(0, len(HARD), 2))
def test_a_whole_report_on_names_of_any_kind(tmp_path: Path, at: int) -> None:
    names = [HARD[at], HARD[(at + 1) % len(HARD)]]
    rows = [
        {"model": m, "benchmark": b, "subject": s, "id": f"{s}{i}", "pred": "AB"[(i + k) % 2], "target": "A",
         "device": HARD[at], "run": HARD[at], "question": HARD[at] * 3, "choices": list(names), "text": HARD[at]}
        for k, m in enumerate(names) for b in names for s in (*names, "plain") for i in range(8)
    ]  # fmt: skip
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = make_report([path], tmp_path / "out" / "report.pdf", html=True)
    assert made.pdf.read_bytes().startswith(b"%PDF")
    inside = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert inside == {path, *made.files} and all(p.stat().st_size for p in inside)


def test_figures_of_names_that_look_alike_are_files_of_their_own() -> None:
    names = ("a b", "a-b", "A-B", "a/b", "x" * 300, "x" * 299, "水", "plain")
    measures: Any = SimpleNamespace(study=SimpleNamespace(benchmarks=[SimpleNamespace(name=name) for name in names]))
    files = [file_name("differences", name, measures) for name in names]
    assert len({name.lower() for name in files}) == len(names)
    assert files[-1] == "differences-plain" and all(len(name) < 100 and name.isascii() for name in files)


@pytest.mark.parametrize(
    "name", ["docs/demo.x.jsonl", "eval/a/demo.x/records.jsonl", "summary.json", "environment.json"]
)
def test_a_pipe_in_a_run_folder_is_not_waited_for(tmp_path: Path, name: str) -> None:
    run = FakeRun(questions=4, skills={"a": 1.0, "b": 0.0}, subjects=("x",)).write(tmp_path / "run")
    (run / name).unlink()
    os.mkfifo(run / name)
    survives(run)


def test_a_device_and_a_huge_file_are_not_read(tmp_path: Path) -> None:
    for name in ("t.csv", "t.jsonl", "t.json"):
        (tmp_path / name).symlink_to("/dev/zero")
        with pytest.raises(DataError) as caught:
            read(tmp_path / name)
        assert str(caught.value).isprintable()
    big = tmp_path / "big.json"
    big.write_bytes(b'{"version": 2, "eval": {"task": 1}')
    os.truncate(big, 1 << 40)
    with pytest.raises(DataError):
        read(big)
