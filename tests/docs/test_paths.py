"""Files and folders that the guides name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ROOTS = ("lib", "jobs", "tests", "docker", "benchmarks", "notebooks", "manifests", "docs", "tools")
MADE_UP = re.compile(r"NAME|BENCHMARK|copa\.py|…|\*|^jobs/sbom\.json$")
"""Placeholders, the file that docs/adding-a-benchmark.md has its reader write, and one that only the images have."""
NAMES = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.py")} | {
    path.relative_to(ROOT).as_posix() for root in ROOTS for path in (ROOT / root).rglob("*.py")
}


def missing(text: str) -> list[str]:
    """Code spans that are a path below one of our folders, or a Python file, and are nowhere."""
    spans = [span for span in re.findall(r"`([\w./-]+)`", text) if not MADE_UP.search(span)]
    rooted = [span for span in spans if span.partition("/")[0] in ROOTS and "/" in span]
    modules = [span for span in spans if span.endswith(".py") and span not in rooted]
    lost = [span for span in rooted if not (ROOT / span).exists() and not (ROOT / "lib/llmjobs" / span).exists()]
    return lost + [span for span in modules if not any(f"/{name}".endswith(f"/{span}") for name in NAMES)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page):
    assert missing(page.read_text(encoding="utf-8")) == []


def test_a_lost_file_is_found():
    assert missing("`lib/llmjobs/scoring`, `local/kept_keys.py`, `agent.py`") == [
        "lib/llmjobs/scoring",
        "local/kept_keys.py",
    ]
