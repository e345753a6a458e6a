"""The site builds, stops at broken links, includes a new page automatically, and works when opened as files."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=8000")
ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README",
    "CONTRIBUTING",
    "CHANGELOG",
    "benchmarks/README",
    "results/README",
    "docs/adr/README",
    "docs/adr/0001-one",
)
BROKEN = {
    "[a page](nowhere.md)": "nowhere.md",
    "[an anchor](other.md#no-such)": "no-such",
    "[an anchor here](#not-here)": "not-here",
    "![a picture](missing.png)": "missing.png",
    "[a file](../lib/none.py)": "../lib/none.py",
    "[an anchor outside](../README.md#nope)": "nope",
    "[a folder](adr)": "'adr'",
}


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Run what ``make docs`` runs."""
    make = re.search(r"^SPHINX = \$\(BIN\)/python -m sphinx (.*?) -c", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert make, "the Makefile has no SPHINX"
    places = ["-c", str(source / "docs"), "-d", str(out / "cache"), "-b", "html", "-E", str(source), str(out / "site")]
    return subprocess.run([sys.executable, "-m", "sphinx", *make[1].split(), *places], capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    built = build(ROOT, out)
    assert built.returncode == 0, built.stderr
    return out / "site"


@pytest.fixture
def small(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """A repository of a few pages, one of them with the text that is given."""
    for name in (*PAGES, "docs/index", "docs/other"):
        path = tmp_path / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n\n[home](/docs/index.md)\n", encoding="utf-8")
    shutil.copy(ROOT / "docs" / "conf.py", tmp_path / "docs")

    def with_page(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "docs" / "page.md").write_text(f"# A page\n\n{text}\n", encoding="utf-8")
        return build(tmp_path, tmp_path / "out")

    return with_page


def test_every_page_is_in_the_navigation(site: Path) -> None:
    first = (site / "docs" / "index.html").read_text(encoding="utf-8")
    pages = {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} - {"index.html"}
    linked = set(re.findall(r'class="reference internal" href="([\w./-]+\.html)"', first))
    assert pages <= linked
    assert {"../README.html", "../CONTRIBUTING.html", "../CHANGELOG.html", "adr/README.html"} <= linked
    assert 'url=docs/index.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="((?:https?:)?//[^"]+)"', path.read_text("utf-8"))
        assert not loaded, f"{path.name} needs the network for {loaded}"


def test_whatever_a_page_names_lies_beside_it(site: Path) -> None:
    for path in site.rglob("*.html"):
        named = re.findall(r'(?:src|href)="([^"#?:]+)["#?]', path.read_text(encoding="utf-8"))
        gone = [one for one in named if not (path.parent / unquote(one)).is_file()]
        assert not gone, f"{path.relative_to(site)} names {gone}"


def test_pages_have_no_html_of_their_own() -> None:
    """Links and pictures in raw HTML would not be checked."""
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        text = re.sub(r"^```.*?^```|`[^`]+`", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        assert not re.findall(r"<(?:a|img|iframe|script)\b", text), f"{path.name}: write links and pictures in Markdown"


def test_a_new_page_needs_no_line_anywhere(
    small: Callable[[str], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    built = small("[another](other.md#docsother)")
    assert built.returncode == 0, built.stderr
    assert 'href="page.html"' in (tmp_path / "out" / "site" / "docs" / "index.html").read_text(encoding="utf-8")


def test_whatever_is_broken_stops_it(small: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    built = small("\n\n".join(BROKEN))
    assert built.returncode != 0
    missed = [text for text, told in BROKEN.items() if told not in built.stderr]
    assert not missed, f"not noticed: {missed}\n{built.stderr}"


def test_search_works_in_a_folder_opened_as_files(site: Path, tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: the site is not tried in a browser")
    page = f"{(site / 'search.html').as_uri()}?q=quantization"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page]
    environment = {**os.environ, "HOME": str(tmp_path)}
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment).stdout
    assert 'href="docs/manifest.html"' in shown.split('id="search-results"')[1]
