"""Reading rows from a file on disk: CSV, TSV, JSONL, JSON or parquet, never more than fits.

Whatever is wrong with a file comes out as one :class:`~llmjobs.errors.DataError` that names file and line.
"""

import csv
import json
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from llmjobs.errors import DataError
from llmjobs.hub import parquet_files
from llmjobs.hub.parquet_files import mib

MAX_FILE_BYTES = parquet_files.MAX_BYTES
MAX_JSON_BYTES = 32 * 1024**2
"""One JSON list is parsed at once and grows many times in memory; JSONL does not."""
MAX_CELL_CHARS = parquet_files.MAX_CELL_CHARS
MAX_ROWS = parquet_files.MAX_ROWS

Numbered = tuple[int, dict[str, Any]]
"""A row with its line (CSV, JSONL) or its place from 1 (JSON, parquet)."""


def read_rows(path: Path, columns: tuple[str, ...] = ()) -> list[Numbered]:
    """Read all rows of ``path``; ``columns`` names those of a CSV file that has no header.

    Raises:
        DataError: not a readable file of a known kind, too large, or a line that cannot be read.

    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: rows are read from {', '.join(READERS)}; convert it to one of them")
    _check_size(path)
    rows: list[Numbered] = []
    for line, row in _guarded(path, reader(path, columns)):
        if len(rows) >= MAX_ROWS:
            raise DataError(f"{path}:{line}: more than {MAX_ROWS:,} rows; keep fewer rows")
        rows.append((line, row))
    return rows


def _check_size(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give a file with rows") from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: is not a regular file; give a file with rows")
    allowed = MAX_JSON_BYTES if path.suffix.lower() == ".json" else MAX_FILE_BYTES
    if found.st_size > allowed:
        raise DataError(f"{path}: {mib(found.st_size)} is more than the {mib(allowed)} allowed; use JSONL, fewer rows")


def _guarded(path: Path, rows: Iterable[Numbered]) -> Iterator[Numbered]:
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}: {error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give a readable file") from None


def _csv(path: Path, columns: tuple[str, ...]) -> Iterator[Numbered]:
    """Read a header and its rows; without a header where ``columns`` are known and the first cell is not one."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        previous = csv.field_size_limit(MAX_CELL_CHARS)
        header: list[str] | None = None
        try:
            for cells in lines:
                if not cells:
                    continue
                if header is None:
                    headerless = bool(columns) and cells[0].strip().lower() not in {c.lower() for c in columns}
                    header = list(columns) if headerless else [cell.strip() for cell in cells]
                    if not headerless:
                        continue
                if len(cells) != len(header):
                    raise DataError(f"{path}:{lines.line_num}: {len(cells)} cells where {len(header)} are expected")
                yield lines.line_num, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise DataError(f"{path}:{lines.line_num}: is not CSV ({error}); quote cells as CSV does") from None
        finally:
            csv.field_size_limit(previous)


def _jsonl(path: Path, columns: tuple[str, ...]) -> Iterator[Numbered]:
    with path.open(encoding="utf-8-sig", newline="\n") as stream:
        number = 0
        while line := stream.readline(MAX_CELL_CHARS * 4):
            number += 1
            if line.strip():
                yield number, _object(path, number, _parse(path, number, line.rstrip()))


def _json(path: Path, columns: tuple[str, ...]) -> Iterator[Numbered]:
    found = _parse(path, 1, path.read_text(encoding="utf-8-sig"))
    if not isinstance(found, list):
        raise DataError(f"{path}: holds no list; a JSON file of rows is one list of objects")
    for number, row in enumerate(found, start=1):
        yield number, _object(path, number, row)


def _parse(path: Path, line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{line + error.lineno - 1}: is not JSON ({error.msg}, column {error.colno}); correct that line"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{line}: cannot be read as JSON ({str(error)[:80]})") from None


def _object(path: Path, line: int, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{path}:{line}: a row is an object with named columns, not {type(row).__name__}")
    return row


def _parquet(path: Path, columns: tuple[str, ...]) -> Iterator[Numbered]:
    number = 0
    for batch in parquet_files.batches(path):
        for row in batch.to_pylist():
            number += 1
            yield number, row


READERS: dict[str, Callable[[Path, tuple[str, ...]], Iterator[Numbered]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
}
