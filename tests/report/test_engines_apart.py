"""Two runs of one model on different engines are two models of a report, and the engine is what differs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmjobs.cli import main


def run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    assert ended.value.code == 0


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A real run, and a copy that says that another engine made it."""
    place = tmp_path_factory.mktemp("engines")
    (place / "one.yaml").write_text(
        "models: [{id: llmjobs/demo-tiny, dtype: float32}]\n"
        "eval: {benchmarks: [{name: demo, subjects: [far_country, odd_one_out], limit: 10}]}\n"
    )
    run("eval", place / "one.yaml", "--results", place)
    shutil.copytree(place / "one", place / "two")
    (model,) = (place / "two").glob("eval/*/model.json")
    model.write_text(json.dumps(json.loads(model.read_text()) | {"engine": "vllm", "kv_cache": "float32"}))
    return [place / "one", place / "two"]


def test_they_are_no_repeats_and_differ_in_the_engine(two_runs: list[Path], tmp_path: Path) -> None:
    run("report", *two_runs, "--output", tmp_path / "report.pdf")
    summary: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())["report"]
    whole = [line for line in summary["summary"] if not line["subject"]]
    assert sorted(line["engine"] for line in whole) == ["transformers", "vllm"]
    assert sorted(line["model"] for line in whole) == ["demo-tiny transformers", "demo-tiny vllm"]
    notes = (tmp_path / "notes.md").read_text()
    assert "differ in engine (transformers, vllm): they cannot be told apart" in notes


def test_an_engine_can_be_selected(two_runs: list[Path], tmp_path: Path) -> None:
    run("report", *two_runs, "--output", tmp_path / "report.pdf", "--where", "engine=vllm")
    summary = json.loads((tmp_path / "summary.json").read_text())["report"]
    assert {line["engine"] for line in summary["summary"]} == {"vllm"}
