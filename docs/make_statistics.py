"""Writes the tables of rates in ``statistics.md`` (``make docs``) from ``benchmarks/false_positives.json``."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("statistics.md")
RATES = PAGE.parents[1] / "benchmarks" / "false_positives.json"
MODELS = (2, 3, 6)
START, END = "<!-- {} of benchmarks/false_positives.json; change: make docs -->", "<!-- end -->"
TITLES = {"tests": "test with nothing to find, at 5%", "intervals": "95% interval"}


def render() -> str:
    """Return the page with its tables made anew."""
    text = PAGE.read_text(encoding="utf-8")
    found = json.loads(RATES.read_text(encoding="utf-8"))
    for part in ("tests", "intervals"):
        start = START.format(part)
        block = f"{start}\n{_table(part, found[part])}\n{END}"
        text = re.sub(f"{re.escape(start)}.*?{END}", lambda _, block=block: block, text, flags=re.S)  # type: ignore[misc]
    return re.sub(r"seed \d+", f"seed {found['seed']}", text)


def _table(part: str, rows: list[Mapping[str, Any]]) -> str:
    head = [TITLES[part], *(f"{kind} {models}" for kind in ("indep.", "clust.") for models in MODELS), "studies"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1)]
    for row in rows:
        cells = [_percent(row[f"{kind} {m}"]) for kind in ("independent", "clustered") for m in MODELS]
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {row['studies']:,} |")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
