"""Every test that docs/reliability.md names is there; every row has all of its columns."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
NAMED = re.findall(r"\[`(\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", PAGE)


@pytest.mark.parametrize(("name", "file"), NAMED, ids=[name for name, _ in NAMED])
def test_the_test_exists(name, file):
    source = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^ *def {name}\(", source, re.MULTILINE), f"{file} has no {name}"


def test_every_fault_has_promise_test_and_result():
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and "`test_" in line]
    assert len(rows) > 20
    for row in rows:
        assert len(row) == 4 and all(cell.strip(" |") for cell in row), row[0]
        assert re.search(r"\[`test_\w+`\]", row[2]), row[0]


def test_the_campaign_found_nothing():
    """The last campaign's table: a thousand kills, no difference."""
    table = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in PAGE.splitlines()
        if re.match(r"\| (eval|converse|mtbench|matrix|report)\b[^|]* \| \d", line)
    ]
    jobs = ["eval", "converse", "mtbench", "matrix", "report", "mtbench, unreliable judge"]
    assert [row[0] for row in table] == jobs
    assert sum(int(row[3].replace(",", "")) for row in table) >= 1000
    assert {row[-1] for row in table} == {"0"}
