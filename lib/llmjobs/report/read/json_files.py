"""JSON and JSONL as they lie on disk: torn, cut, or none at all. What cannot be read is told."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmjobs.report.study import RawRun


def read_json(path: Path, run: RawRun, where: str) -> dict[str, Any]:
    """Return a JSON object, or an empty one with a notice."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        run.notice(where, "the file is missing")
        return {}
    except (OSError, ValueError) as error:
        run.notice(where, f"cannot be read as JSON ({error})")
        return {}
    if not isinstance(value, dict):
        run.notice(where, f"holds a {type(value).__name__} where an object was expected")
        return {}
    return value


def read_lines(path: Path, run: RawRun, where: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file; a torn last line and broken lines become one notice each."""
    try:
        data = path.read_bytes()
    except OSError as error:
        what = "the file is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        run.notice(where, what)
        return
    whole = data.endswith(b"\n") or not data
    lines = data.splitlines()
    broken = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            if number == len(lines) and not whole:
                run.notice(where, "the last line is torn (the run was stopped while writing it); it is not counted")
            else:
                broken.append(number)
            continue
        if isinstance(value, dict):
            yield value
        else:
            broken.append(number)
    if broken:
        shown = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
        run.notice(where, f"{len(broken)} of {len(lines)} lines are not JSON objects (line {shown}); not counted")


def number_or_none(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(float(value)) < float("inf") else None
