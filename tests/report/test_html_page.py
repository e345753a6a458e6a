"""The HTML page in a headless Chromium: it filters, it runs nothing from data, it needs no network."""

import html
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from run_folders import FakeRun, Line

from llmjobs.make_report import make_report

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
    """Return a script that sets filters and reports the page."""
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


def test_it_finds_what_one_model_gets_right_and_another_wrong(page: Path, tmp_path: Path) -> None:
    first_only = count(rendered(page, tmp_path, choose(model="0", outcome="1", other="2", otheroutcome="0")))
    both = count(rendered(page, tmp_path, choose(model="0", outcome="1", other="2", otheroutcome="1")))
    unread = count(rendered(page, tmp_path, choose(model="0", outcome="1", other="2", otheroutcome="u")))
    assert first_only > 0
    assert first_only + both + unread == count(rendered(page, tmp_path, choose(model="0", outcome="1")))


def rows(dom: str) -> list[list[str]]:
    """The table of models, cell by cell."""
    body = dom.split('id="models"')[1].split("<tbody>")[1].split("</tbody>")[0]
    return [
        [re.sub("<.*?>", "", cell) for cell in re.findall("<td>(.*?)</td>", row)] for row in body.split("</tr>")[:-1]
    ]


def test_the_table_of_models_sorts_and_follows_the_subject(page: Path, tmp_path: Path) -> None:
    whole = rows(rendered(page, tmp_path))
    assert [row[0] for row in whole] == ["large", "middle", "small"]
    assert all(row[4] == "120" for row in whole)
    by_name = "document.querySelectorAll('#models th button')[0].click();"
    assert [row[0] for row in rows(rendered(page, tmp_path, by_name * 2))] == ["small", "middle", "large"]
    part = rows(rendered(page, tmp_path, choose(subject="1")))
    assert all(row[4] == "40" for row in part)
    assert sum(int(row[3]) for row in part) < sum(int(row[3]) for row in whole)


def test_questions_are_ordered_by_how_many_models_miss_them(page: Path, tmp_path: Path) -> None:
    dom = rendered(page, tmp_path, choose(order="hard"))
    marks = [re.findall('data-mark="(.)"', article) for article in dom.split("<article")[1:]]
    missed = [sum(mark in "✗?" for mark in found) for found in marks]
    assert missed == sorted(missed, reverse=True)
    assert missed[0] == 3


def test_what_is_hidden_does_not_show(page: Path, tmp_path: Path) -> None:
    script = (
        "document.title = ['benchmark', 'otheroutcome'].map(id =>"
        " getComputedStyle(document.getElementById(id).parentElement).display).join(' ');"
    )
    assert "<title>none none</title>" in rendered(page, tmp_path, script)


def test_it_searches_and_shows_more(page: Path, tmp_path: Path) -> None:
    assert count(rendered(page, tmp_path, choose(search="onerror"))) == 3
    more = rendered(page, tmp_path, "document.getElementById('more').click();")
    assert more.count("<article") == 80


def test_it_asks_for_nothing_else(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)\s*=\s*["']?https?:""", text)
