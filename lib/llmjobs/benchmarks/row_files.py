"""Reading rows from a file on disk: CSV, TSV, JSONL, JSON or parquet, never more than fits.

Whatever is wrong with a file comes out as one :class:`~llmjobs.errors.DataError` that names file and line.
"""

import csv
import json
import stat
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from llmjobs.errors import DataError

MAX_FILE_BYTES = 256 * 1024**2
MAX_JSON_BYTES = 32 * 1024**2
"""One JSON list is parsed at once and grows many times in memory; JSONL does not."""
MAX_CELL_CHARS = 1024**2
MAX_ROWS = 1_000_000
PARQUET_BATCH = 64
"""Rows decoded at a time: a dictionary page can hold a large value that many rows name."""

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
        raise DataError(
            f"{path}: {_mib(found.st_size)} is more than the {_mib(allowed)} allowed; use JSONL, fewer rows"
        )


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
        raise DataError(f"{path}:{line + error.lineno - 1}: is not JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{line}: cannot be read as JSON ({str(error)[:80]})") from None


def _object(path: Path, line: int, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{path}:{line}: a row is an object with named columns, not {type(row).__name__}")
    return row


def _parquet(path: Path, columns: tuple[str, ...]) -> Iterator[Numbered]:
    pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    number = total = 0
    try:
        schema = pq.read_schema(path)
        text = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        with pq.ParquetFile(path, read_dictionary=text) as table:
            meta = table.metadata
            size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            if size > MAX_FILE_BYTES or meta.num_rows > MAX_ROWS:
                raise DataError(
                    f"{path}: {meta.num_rows:,} rows of {_mib(size)} are more than the {MAX_ROWS:,} rows or "
                    f"{_mib(MAX_FILE_BYTES)} allowed; keep fewer rows"
                )
            for batch in table.iter_batches(batch_size=PARQUET_BATCH):
                _check_cells(path, number, batch)
                total += batch.nbytes
                for row in batch.to_pylist():
                    number += 1
                    total += sum(len(value) for value in row.values() if isinstance(value, str))
                    if total > 4 * MAX_FILE_BYTES:
                        raise DataError(f"{path}: unpacks to over {_mib(total)}; keep fewer or smaller rows")
                    yield number, row
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0][:120]})") from None


def _check_cells(path: Path, number: int, batch: Any) -> None:
    pa, pc = import_module("pyarrow"), import_module("pyarrow.compute")
    for column in batch.columns:
        values = column.dictionary if pa.types.is_dictionary(column.type) else None
        longest = (pc.max(pc.binary_length(values)).as_py() or 0) if values is not None else column.nbytes // 16
        if longest > MAX_CELL_CHARS:
            raise DataError(f"{path}:{number + 1}: a cell of about {_mib(longest)} is too large; keep smaller rows")


def _mib(size: int) -> str:
    return f"{size / 1024**2:,.0f} MiB"


READERS: dict[str, Callable[[Path, tuple[str, ...]], Iterator[Numbered]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
}
