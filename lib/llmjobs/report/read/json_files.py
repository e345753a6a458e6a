"""Read JSON and JSONL files that may be cut off, damaged, foreign or missing, with notices about unreadable parts."""

import hashlib
import json
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from llmjobs.errors import DataError, json_kind, printable
from llmjobs.report.study import RawRun
from llmjobs.terminal_text import agree, plural

T = TypeVar("T")
MAX_JSON_BYTES = 512 * 1024**2
MAX_LINES_BYTES = 8 * 1024**3
MAX_LINE_BYTES = 16 * 1024**2
MAX_NAME = 200
MALFORMED = (AttributeError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError)
"""Exceptions raised when a value does not have the expected form."""


def read_json(path: Path, run: RawRun, where: str) -> dict[str, Any]:
    """Return a JSON object; if it cannot be read, return an empty one and add a notice."""
    try:
        value = json.loads(read_text(path))
    except FileNotFoundError:
        run.notice(where, "the file is missing")
        return {}
    except (OSError, ValueError, RecursionError, DataError) as error:
        run.notice(where, f"cannot be read as JSON ({_short(error)})")
        return {}
    if not isinstance(value, dict):
        run.notice(where, f"contains {json_kind(value)} instead of an object")
        return {}
    return value


def read_text(path: Path) -> str:
    """Return the text of a regular file of at most :data:`MAX_JSON_BYTES`.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read, or is not UTF-8.
        DataError: a pipe or device, or larger.

    """
    _check(path, MAX_JSON_BYTES)
    return path.read_text(encoding="utf-8")


def _check(path: Path, allowed: int) -> None:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path.name}: is not a regular file")
    if found.st_size > allowed:
        raise DataError(f"{path.name}: {found.st_size / 1024**2:,.0f} MiB are more than the {allowed >> 20:,} allowed")


def read_lines(path: Path, run: RawRun, where: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file; an incomplete last line and broken lines become one notice each."""
    number, broken, torn = 0, [], False
    try:
        _check(path, MAX_LINES_BYTES)
        with path.open("rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES):
                number += 1
                value = _parsed(line)
                if isinstance(value, dict):
                    yield value
                elif not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES and value is None:
                    torn = True
                elif line.strip():
                    broken.append(number)
    except (OSError, DataError) as error:
        what = "the file is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({_short(error)})"
        run.notice(where, what)
        return
    if torn:
        run.notice(where, "the last line is cut off (the run was stopped while writing it) and is not counted")
    if broken:
        _tell_broken(run, where, broken, "line", number, ("is not a JSON object", "are not JSON objects"))


def _parsed(line: bytes) -> Any:
    """Return the value of a line; None if it cannot be read."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def each(lines: Iterable[Mapping[str, Any]], make: Callable[[Any], T], run: RawRun, where: str) -> Iterator[T]:
    """Yield what ``make`` returns for each record; those with an unexpected form become one notice."""
    broken, number = [], 0
    for number, line in enumerate(lines, start=1):
        try:
            made = make(line)
        except MALFORMED:
            broken.append(number)
            continue
        yield made
    if broken:
        _tell_broken(
            run,
            where,
            broken,
            "record",
            number,
            ("does not have the expected format", "do not have the expected format"),
        )


def _tell_broken(run: RawRun, where: str, numbers: list[int], noun: str, total: int, fault: tuple[str, str]) -> None:
    shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    run.notice(
        where,
        f"{len(numbers)} of {plural(total, noun)} {agree(len(numbers), *fault)} ({noun} {shown}); not counted",
    )


def number_or_none(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if abs(float(value)) < float("inf") else None
    except OverflowError:
        return None


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping unchanged, and an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """Return a list unchanged, and an empty one for anything else."""
    return value if isinstance(value, list) else []


def name_of(value: Any) -> str:
    """Return a name from a log on one line, without control characters; a very long one is cut but stays unique."""
    text = printable(str(value))
    if len(text) <= MAX_NAME:
        return text
    return f"{text[: MAX_NAME - 10]}…{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def scores_of(values: Any) -> list[float] | None:
    """Return a list of finite numbers, None for anything else."""
    if not isinstance(values, list) or not values:
        return None
    numbers = [number_or_none(value) for value in values]
    return None if None in numbers else [number for number in numbers if number is not None]


def metrics_of(value: Any) -> dict[str, float] | None:
    """Return the finite numbers of a mapping by name; None if there are none."""
    return {name_of(k): n for k, v in mapping(value).items() if (n := number_or_none(v)) is not None} or None


def _short(error: Exception) -> str:
    return printable(getattr(error, "strerror", None) or str(error))[:200]
