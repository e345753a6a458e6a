"""What the README and docs/demo.md print of ``make demo`` is what it gives, whatever this processor computes best."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmjobs.demo import DEMO_MODELS
from llmjobs.manifest import load_manifest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
TIMEOUT_S = 500


def run(results: Path) -> tuple[str, dict[str, Any]]:
    """What the demo's evaluation prints, and its part of ``summary.json``."""
    command = [sys.executable, "-m", "llmjobs", "eval", "demo", "--results", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((results / "demo" / "summary.json").read_text(encoding="utf-8"))["eval"]


def accuracy_columns(text: str) -> list[list[str]]:
    """Model, accuracy with its interval, macro average and questions, of each line of the table."""
    found = re.findall(r"^(demo-\w+) +(\d\S+%) (\(\S+\)) +(\S+%) +([\d,]+) ", text, flags=re.M)
    assert [line[0] for line in found] == list(DEMO_MODELS), text
    return [list(line) for line in found]


@pytest.mark.parametrize("name", ["demo", "smoke", "chat", "mtbench"])
def test_the_number_format_of_demo_models_does_not_depend_on_the_processor(name):
    assert {model.dtype for model in load_manifest(name).models} == {"float32"}


def test_accuracies_are_those_of_the_readme_and_the_page(tmp_path):
    printed, summary = run(tmp_path)
    assert accuracy_columns(printed) == accuracy_columns(README)
    by_subject: dict[str, list[int]] = {}
    for model in summary["models"]:
        for part in model["benchmarks"][0]["subjects"]:
            by_subject.setdefault(part["subject"], []).append(part["correct"])
    in_page = re.findall(r"^\| ([a-z_]+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, flags=re.M)
    assert {subject: list(map(int, counts)) for subject, *counts in in_page} == by_subject
