"""docs/hub.md lists the errors in the words in which they are told."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "hub.md").read_text(encoding="utf-8")
TOLD = re.findall(r"^\| `([^`]+)` \|", DOCS.split("## Every error")[1], re.MULTILINE)
SOURCES = " ".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "lib" / "llmjobs" / "hub").glob("*.py")))


@pytest.mark.parametrize("words", TOLD)
def test_an_error_in_the_guide_is_told_so(words: str) -> None:
    plain = re.sub(r"\{[^}]*\}", "", re.sub(r"\"\s+f?\"", "", SOURCES))
    assert words.replace(" 429", "") in plain


def test_the_guide_has_every_error() -> None:
    assert len(TOLD) >= 15
