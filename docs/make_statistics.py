"""Writes the tables of rates in ``statistics.md`` (``make docs``) from two files in ``benchmarks``."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("statistics.md")
RATES = PAGE.parents[1] / "benchmarks" / "false_positives.json"
STOPPED = RATES.with_name("sequential.json")
MODELS = (2, 3, 6)
START, END = "<!-- {} of benchmarks/{}; change: make docs -->", "<!-- end -->"
TITLES = {
    "tests": "test with nothing to find, at 5%",
    "intervals": "95% interval",
    "simulated": "without an error at any look, at 95%",
}


def render() -> str:
    """Return the page with its tables made anew."""
    text = PAGE.read_text(encoding="utf-8")
    found = json.loads(RATES.read_text(encoding="utf-8"))
    stopped = json.loads(STOPPED.read_text(encoding="utf-8"))
    tables = {
        ("tests", RATES.name): _table("tests", found["tests"]),
        ("intervals", RATES.name): _table("intervals", found["intervals"]),
        ("simulated", STOPPED.name): _table("simulated", stopped["simulated"]),
        ("replay", STOPPED.name): _replay(stopped["replay"]),
        ("blocks", STOPPED.name): _blocks(stopped["blocks"]),
    }
    for place, table in tables.items():
        start = START.format(*place)
        block = f"{start}\n{table}\n{END}"
        text = re.sub(f"{re.escape(start)}.*?{END}", lambda _, block=block: block, text, flags=re.S)  # type: ignore[misc]
    return re.sub(r"seed \d+", f"seed {found['seed']}", text)


def _table(part: str, rows: list[Mapping[str, Any]]) -> str:
    head = [TITLES[part], *(f"{kind} {models}" for kind in ("indep.", "clust.") for models in MODELS), "studies"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1)]
    for row in rows:
        cells = [_percent(row[f"{kind} {m}"]) for kind in ("independent", "clustered") for m in MODELS]
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {row['studies']:,} |")
    return "\n".join(lines)


def _replay(rows: list[Mapping[str, Any]]) -> str:
    lines = [
        "| models | questions | lead, points | rule | asked: median (quartiles) | share | looks | all asked | wrong |",
        "|--:|--:|--:|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        low, high = row["quartiles"]
        cells = [row["models"], f"{row['questions']:,}", _percent(row["lead"]), row["rule"]]
        cells += [f"{row['median']:,} ({low:,} to {high:,})", f"{row['share']:.0%}", row["looks"]]
        cells += [f"{row[key]} of {row['orders']}" for key in ("undecided", "wrong")]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _blocks(rows: list[Mapping[str, Any]]) -> str:
    """Questions and looks by the schedule of blocks, one column each."""
    schedules = list(dict.fromkeys(row["schedule"] for row in rows))
    heads = [f"always {one}" if float(one) > 10 else f"64, then × {one}" for one in schedules]
    lines = [f"| models | questions | rule | {' | '.join(heads)} |", "|--:|--:|---|" + "--:|" * len(heads)]
    for one in dict.fromkeys((row["models"], row["questions"], row["rule"]) for row in rows):
        same = {row["schedule"]: row for row in rows if (row["models"], row["questions"], row["rule"]) == one}
        cells = [f"{same[name]['median']:,} in {same[name]['looks']}" for name in schedules]
        lines.append(f"| {one[0]} | {one[1]:,} | {one[2]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
