"""Runs the job in this process and reads what it wrote."""

import json
from pathlib import Path

import pytest

from llmjobs.cli import main


def run(*arguments, expect=0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["mtbench", *map(str, arguments)])
    assert ended.value.code == expect


def part_of(results: Path) -> dict:
    return json.loads((results / "study/summary.json").read_text())["mtbench"]


def records_of(results: Path) -> dict[str, bytes]:
    return {str(p.relative_to(results)): p.read_bytes() for p in sorted(results.rglob("records.jsonl"))}
