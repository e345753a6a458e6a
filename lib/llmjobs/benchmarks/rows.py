"""Where a benchmark's rows come from: the package itself, a local file or folder, or the hub."""

import csv
import hashlib
import json
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmjobs.benchmarks.base import Benchmark, Row
from llmjobs.errors import DataError, json_kind
from llmjobs.hub import datasets
from llmjobs.hub.datasets import mib

# Files on disk: CSV, TSV, JSONL, JSON or parquet, up to a limit of size.

MAX_FILE_BYTES = datasets.MAX_BYTES
MAX_JSON_BYTES = 32 * 1024**2
"""A JSON list is parsed at once and needs several times its size in memory; JSONL does not."""
MAX_CELL_CHARS = datasets.MAX_CELL_CHARS
MAX_ROWS = datasets.MAX_ROWS

Numbered = tuple[int, dict[str, Any]]
"""A row with its line (CSV, JSONL) or its place from 1 (JSON, parquet)."""


def read_rows(path: Path, columns: tuple[str, ...] = ()) -> list[Numbered]:
    """Read all rows of ``path``; ``columns`` names those of a CSV file that has no header.

    Raises:
        DataError: not a readable file of a known kind, too large, or a line that cannot be read.

    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: cannot read this kind of file; convert it to one of {', '.join(READERS)}")
    _check_size(path)
    rows: list[Numbered] = []
    for line, row in _guarded(path, reader(path, columns)):
        if len(rows) >= MAX_ROWS:
            raise DataError(f"{path}:{line}: more than {MAX_ROWS:,} rows; use fewer rows")
        rows.append((line, row))
    return rows


def _check_size(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; name a file with rows") from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: is not a regular file; name a file with rows")
    allowed = MAX_JSON_BYTES if path.suffix.lower() == ".json" else MAX_FILE_BYTES
    if found.st_size > allowed:
        raise DataError(
            f"{path}: {mib(found.st_size)} is more than the {mib(allowed)} allowed; use JSONL or fewer rows"
        )


def _guarded(path: Path, rows: Iterable[Numbered]) -> Iterator[Numbered]:
    try:
        yield from rows
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}: {error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; name a readable file") from None


def _csv(path: Path, columns: tuple[str, ...]) -> Iterator[Numbered]:
    """Read a header and its rows; there is no header if ``columns`` are known and the first cell is not one of them."""
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
                    raise DataError(f"{path}:{lines.line_num}: {len(cells)} cells, but {len(header)} are expected")
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
        raise DataError(f"{path}: does not contain a list; a JSON file of rows is one list of objects")
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
        raise DataError(f"{path}:{line}: a row must be an object with named columns, not {json_kind(row)}")
    return row


def _parquet(path: Path, columns: tuple[str, ...]) -> Iterator[Numbered]:
    number = 0
    for batch in datasets.batches(path):
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


@dataclass(frozen=True)
class RowSet:
    """The rows of one subject and split, in the benchmark's canonical form and in their published order."""

    rows: list[Row]
    hash: str
    """SHA-256 over the rows as canonical JSON: the same rows have the same hash, whatever file they came from."""
    origin: str
    """Readable source: the file, the hub data set, or the package."""
    revision: str | None
    """Commit of the hub data set; None for other sources."""


def load_rows(
    benchmark: type[Benchmark], subject: str, split: str, *, data: str | None = None, revision: str | None = None
) -> RowSet:
    """Load the rows of a subject; ``split`` is ``test`` or ``fewshot``.

    ``data`` names a local folder or file, ``revision`` a branch, tag or commit of the hub data set.

    Raises:
        DataError: nothing is found there, or a row does not have the benchmark's format (the message names the line).

    """
    if data is not None:
        files = find_files(benchmark, subject, split, Path(data).expanduser())
        numbered = ((f"{path}:{line}", row) for path in files for line, row in read_rows(path, benchmark.csv_columns))
        return row_set(benchmark, subject, split, numbered, str(files[0] if len(files) == 1 else files[0].parent), None)
    own = benchmark.own_rows(subject, split)
    if own is not None:
        placed = ((f"{benchmark.name}.{subject}:{at}", row) for at, row in enumerate(own, start=1))
        return row_set(benchmark, subject, split, placed, "llmjobs", None)
    if benchmark.hub is None or split not in benchmark.hub.splits:
        raise DataError(f"{benchmark.name}: has no {split} rows on the hub; set data: to a folder with {split}.jsonl")
    from llmjobs.hub.datasets import dataset_rows

    config = benchmark.hub.config and benchmark.hub.config.format(subject=subject)
    found = dataset_rows(benchmark.hub.path, config, benchmark.hub.splits[split], revision)
    place = "/".join(filter(None, (benchmark.hub.path, config, benchmark.hub.splits[split])))
    located = ((f"{place}:{at}", row) for at, row in enumerate(found.rows, start=1))
    return row_set(benchmark, subject, split, located, place, found.revision)


def row_set(
    benchmark: type[Benchmark],
    subject: str,
    split: str,
    numbered: Iterable[tuple[str, Row]],
    origin: str,
    revision: str | None,
) -> RowSet:
    """Convert rows to canonical form, keep those of the subject, and hash them."""
    rows: list[Row] = []
    lines: list[bytes] = []
    for place, raw in numbered:
        try:
            if not benchmark.belongs(raw, subject):
                continue
            rows.append(benchmark.canonical(raw))
            lines.append(json.dumps(rows[-1], sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())
        except KeyError as error:
            raise DataError(
                f"{place}: there is no column {error.args[0]!r} among {_columns(raw)}; {benchmark.name} needs it"
            ) from None
        except (ValueError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise DataError(f"{place}: not a row of {benchmark.name} ({str(error)[:200]})") from None
    rows, lines = benchmark.part(rows, split), benchmark.part(lines, split)
    if not rows:
        raise DataError(f"{origin}: no {split} rows of {benchmark.name} {subject}; check data: and subjects:")
    return RowSet(rows, hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest(), origin, revision)


def find_files(benchmark: type[Benchmark], subject: str, split: str, data: Path) -> list[Path]:
    """Find the file of a subject and split below ``data``; several only if parquet is split into shards.

    Raises:
        DataError: there is none; the message says what was looked for.

    """
    if data.is_file():
        if split != "test" and not benchmark.shares_file:
            raise DataError(
                f"{data}: one file contains only the questions; for shots, name a folder that also has {split} rows"
            )
        return [data]
    if not data.is_dir():
        raise DataError(f"{data}: no such folder or file; data: is for local rows, remove data: to use the hub")
    patterns = list(_patterns(benchmark, subject, split))
    for pattern in patterns:
        found = sorted(p for p in data.glob(pattern) if p.suffix.lower() in READERS and p.is_file())
        if len(found) > 1 and any(p.suffix != ".parquet" for p in found):
            names = ", ".join(str(p.relative_to(data)) for p in found[:3])
            raise DataError(f"{data}: {names} all match {benchmark.name} {subject} {split}; keep one of them")
        if found:
            return found
    tried = ", ".join(patterns[:4])
    raise DataError(f"{data}: no rows of {benchmark.name} {subject} {split}; looked for {tried} (csv, jsonl, parquet)")


def _patterns(benchmark: type[Benchmark], subject: str, split: str) -> Iterator[str]:
    """Glob patterns in order: by subject, then the whole benchmark (hub layout last)."""
    names = [split]
    config = None
    if benchmark.hub is not None:
        config = benchmark.hub.config and benchmark.hub.config.format(subject=subject)
        names = list(dict.fromkeys([benchmark.hub.splits.get(split, split), split]))
    for name in names:
        if benchmark.subjects != ("all",):
            yield f"{name}/{subject}_{name}.*"
            yield f"{name}/{subject}.*"
            yield f"{subject}_{name}.*"
            yield f"{subject}/{name}.*"
            yield f"{subject}/{name}-*.parquet"
        yield f"{name}.*"
        yield f"{name}-*.parquet"
        yield f"data/{name}-*.parquet"
        if config:
            yield f"{config}/{name}.*"
            yield f"{config}/{name}-*.parquet"


def _columns(raw: Any) -> str:
    return ", ".join(map(str, list(raw)[:20])) or "none"
