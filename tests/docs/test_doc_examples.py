"""Manifests that the pages show are valid, and their Python is Python."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_commands import FENCE, PAGES, ROOT

from llmjobs.manifest import Manifest
from llmjobs.manifest.load import validate
from llmjobs.manifest.yaml_source import Source
from llmjobs.report.write.notes import MISSING

FILLING: dict[str, Any] = {"name": "shown", "models": ["llmjobs/demo-base"], "eval": {"benchmarks": ["demo"]}}
"""What a part of a manifest needs to be whole."""


def blocks(*languages: str) -> list[Any]:
    """Every block of a language, with page and place as its name."""
    shown = []
    for page in PAGES:
        found = [body for _, language, body in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]
        for at, body in enumerate(found):
            shown.append(pytest.param(body, id=f"{page.relative_to(ROOT)}-{at}"))
    return shown


@pytest.mark.parametrize("text", blocks("yaml", "yml"))
def test_a_manifest_is_valid(text: str) -> None:
    values = yaml.safe_load(text)
    if set(values) <= set(Manifest.model_fields) and "copa" not in text:  # copa is not registered but in its own test
        validate(Source("page", FILLING | values), Path())


def test_the_assignment_has_the_questions_of_the_notes() -> None:
    page = (ROOT / "docs" / "assignment.md").read_text(encoding="utf-8")
    assert all(f"| {question} |" in page for question in MISSING)


@pytest.mark.parametrize("text", blocks("python"))
def test_python_is_python(text: str) -> None:
    source = text.replace("…", "...")
    if re.match(r"\s+\"", source):
        source = f"{{{source}}}"  # a line of a dictionary
    ast.parse(source)
