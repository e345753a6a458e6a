"""docs/hub.md has every error of the hub, in the words in which it is told, and none that is told no more."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "lib" / "llmjobs"
TOLD = re.findall(
    r"^\| `([^`]+)` \|", (ROOT / "docs" / "hub.md").read_text(encoding="utf-8").split("## Every error")[1], re.MULTILINE
)
TELLERS = (
    "explain",
    "_told_by_status",
    "_told_by_network",
    "_told_by_transformers",
    "_gated",
    "_limited",
    "_too_large",
    "_not_found",
    "offline_line",
)
"""Functions whose results are such lines; errors that are raised besides."""


def messages() -> list[str]:
    """Every line that the hub's code can tell; ``{}`` where a name or a number goes."""
    files = [*(LIBRARY / "hub").glob("*.py"), LIBRARY / "fetch.py"]
    found = (one for path in sorted(files) for one in _messages_of(ast.parse(path.read_text(encoding="utf-8"))))
    return [line for line in dict.fromkeys(found) if re.search(r"\w+ \w+ \w+", line)]


def _messages_of(tree: ast.Module) -> Iterator[str]:
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                raised = isinstance(node, ast.Raise) or (isinstance(node, ast.Return) and function.name == "_explained")
                if raised or (isinstance(node, ast.Return) and function.name in TELLERS):
                    yield from _texts(node)


def _texts(node: ast.AST) -> Iterator[str]:
    """Whole strings below ``node``, pieces of a longer one left out."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts(child)


@pytest.mark.parametrize("words", TOLD)
def test_an_error_in_the_guide_is_told_so(words: str) -> None:
    assert any(re.sub(r"\b\d{3}\b", "{}", words) in message for message in messages())


@pytest.mark.parametrize("message", messages())
def test_every_error_is_in_the_guide(message: str) -> None:
    known = [words for words in TOLD if re.sub(r"\b\d{3}\b", "{}", words) in message]
    assert known, "add a row to 'Every error and its remedy' in docs/hub.md"
