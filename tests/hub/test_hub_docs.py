"""docs/hub.md has every error of the hub, nearly in the words of the message, and none that is no longer printed."""

import ast
import re
from collections.abc import Iterator
from difflib import SequenceMatcher
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
SAME = 0.7
"""Share of a row's words that its message has."""


def messages() -> list[str]:
    """Every message of the hub's code; ``{}`` stands for a name or a number."""
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


def is_about(words: str, message: str) -> bool:
    """Whether most of the guide's words are in the message, in their order; small changes of wording pass."""
    guide, told = (re.findall(r"[\w']+|{}", text.lower()) for text in (re.sub(r"\b\d{3}\b", "{}", words), message))
    blocks = SequenceMatcher(None, guide, told, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) >= SAME * len(guide)


@pytest.mark.parametrize("words", TOLD)
def test_an_error_in_the_guide_is_printed(words: str) -> None:
    assert any(is_about(words, message) for message in messages())


@pytest.mark.parametrize("message", messages())
def test_every_error_is_in_the_guide(message: str) -> None:
    known = [words for words in TOLD if is_about(words, message)]
    assert known, "add a row to 'Every error and its remedy' in docs/hub.md"


def test_another_error_is_noticed() -> None:
    for message in ("{}: the hub wants a payment; pay it", "{} is set by two files; keep one of them"):
        assert not [words for words in TOLD if is_about(words, message)]
    assert not any(is_about("has moved to another owner", message) for message in messages())
