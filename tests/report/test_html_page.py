"""The HTML page in a headless Chromium: it filters, it runs nothing from data, it needs no network."""

import html
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from run_folders import FakeRun, Line

from llmjobs.report.job import make_report

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
EVIL = "<img src=x onerror=\"document.title='owned'\"> </script><script>document.title='owned'</script> & <b>bold</b>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: the HTML page is not tried in a browser")

    def change(record: Line) -> Line:
        if record["model"] == "small" and record["doc_id"] == 5:
            return record | {"prediction": None, "correct": False, "status": "unparsed", "text": EVIL}
        return record

    folder = tmp_path_factory.mktemp("html")
    run = FakeRun(
        text=lambda subject, number: EVIL if number == 5 else f"Question {number} on {subject}", change=change
    ).write(folder / "run")
    make_report([run], folder / "report.pdf", html=True)
    return folder / "report.html"


def rendered(page: Path, tmp_path: Path, script: str = "") -> str:
    """The page's DOM after ``script`` ran at its end."""
    tried = tmp_path / "tried.html"
    source = page.read_text(encoding="utf-8")
    tried.write_text(source.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{tried}"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    return done.stdout


def choose(**values: str) -> str:
    """A script that sets filters and tells the page."""
    return "".join(
        f"document.getElementById('{name}').value={value!r};"
        f"document.getElementById('{name}').dispatchEvent(new Event('{'input' if name == 'search' else 'change'}'));"
        for name, value in values.items()
    )


def count(dom: str) -> int:
    match = re.search(r'id="count"[^>]*>(\d+) of 120 questions', dom)
    assert match, dom[-2000:]
    return int(match[1])


def test_it_shows_questions_and_every_models_answer(page: Path, tmp_path: Path) -> None:
    dom = rendered(page, tmp_path)
    assert "<title>Three models on demo</title>" in dom
    assert count(dom) == 120
    assert dom.count("<article") == 40
    assert "owned" not in re.findall(r"<title>(.*?)</title>", dom)[0]
    assert html.escape("<b>bold</b>", quote=False) in dom
    assert "<b>bold</b>" not in dom.split('id="list"')[1].split("application/json")[0]


def test_it_filters_by_subject_model_and_outcome(page: Path, tmp_path: Path) -> None:
    right = count(rendered(page, tmp_path, choose(model="0", outcome="1")))
    wrong = count(rendered(page, tmp_path, choose(model="0", outcome="0")))
    assert right + wrong == 120
    assert count(rendered(page, tmp_path, choose(subject="1"))) == 40
    assert count(rendered(page, tmp_path, choose(outcome="u"))) == 3
    missed = rendered(page, tmp_path, choose(outcome="none"))
    assert count(missed) == 10
    assert "all 3" in missed


def test_it_searches_and_shows_more(page: Path, tmp_path: Path) -> None:
    assert count(rendered(page, tmp_path, choose(search="onerror"))) == 3
    more = rendered(page, tmp_path, "document.getElementById('more').click();")
    assert more.count("<article") == 80


def test_it_asks_for_nothing_else(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)\s*=\s*["']?https?:""", text)
