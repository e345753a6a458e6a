"""The documentation as a site: every Markdown page of the repository, linked as it is linked in the repository.

``make docs`` builds it with warnings as errors, so a link, an anchor or a picture that is not there stops it. A new
page below ``docs/`` is taken in by itself: in the order in which ``index.md`` names it, at the end where it does not.
"""

import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = re.compile(r"\]\(([\w./-]+\.md)[)#]")

project = "llmjobs"
author = "The llmjobs authors"
release = version_of("llmjobs")
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benchmarks/README.md",
    "results/README.md",
    "docs/**",
]
exclude_patterns = [".*", "build", "dist", "lib", "tests", "results/*/**", "**/node_modules", "**/__pycache__"]
myst_heading_anchors = 4
highlight_language = "none"
suppress_warnings = ["misc.highlighting_failure"]
"""An ellipsis in an example is no Python."""

html_theme = "furo"
html_title = f"llmjobs {release}"
html_copy_source = False
html_show_sphinx = False
linkcheck_anchors = False
linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1)"]


def reading_order() -> list[str]:
    """Pages of ``docs/`` as ``index.md`` names them, then those that it does not name."""
    folder = ROOT / "docs"
    named = PAGE.findall((folder / "index.md").read_text(encoding="utf-8"))
    inside = [name for name in dict.fromkeys(named) if (folder / name).is_file() and "/" not in name]
    return inside + sorted(p.name for p in folder.glob("*.md") if p.name not in {*inside, "index.md"})


def contents() -> str:
    """The navigation; kept out of ``index.md``, which the forge shows as it is."""
    trees = {
        "Guides": [f"/docs/{name.removesuffix('.md')}" for name in reading_order()],
        "Project": ["/README", "/CONTRIBUTING", "/CHANGELOG", "/benchmarks/README", "/results/README"],
        "Decisions": ["/docs/adr/README", "/docs/adr/*"],
    }
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"
        for caption, pages in trees.items()
    )


def add_contents(app: Any, page: str, source: list[str]) -> None:
    """Give the first page the navigation."""
    if page == root_doc:
        source[0] += contents()


def add_door(app: Any, error: Exception | None) -> None:
    """Lead from the site's address to the first page."""
    if error is None and app.builder.name == "html":
        target = f"{root_doc}.html"
        door = f'<!doctype html><meta http-equiv="refresh" content="0; url={target}"><a href="{target}">llmjobs</a>\n'
        (Path(app.outdir) / "index.html").write_text(door, encoding="utf-8")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
    app.connect("build-finished", add_door)
