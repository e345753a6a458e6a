"""Where a benchmark's rows come from: its own package, a local folder or file, or the hub."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmjobs.benchmarks.base import Benchmark, Row
from llmjobs.benchmarks.row_files import READERS, read_rows
from llmjobs.errors import DataError


@dataclass(frozen=True)
class RowSet:
    """The rows of one subject and split, in the benchmark's canonical form and in their published order."""

    rows: list[Row]
    hash: str
    """SHA-256 over the rows as canonical JSON: the same rows have the same hash whatever file they came from."""
    origin: str
    """For people: the file, the hub data set, or the package."""
    revision: str | None
    """Commit of the hub data set; None for rows from elsewhere."""


def load_rows(
    benchmark: type[Benchmark], subject: str, split: str, *, data: str | None = None, revision: str | None = None
) -> RowSet:
    """Load the rows of a subject; ``split`` is ``test`` or ``fewshot``.

    ``data`` names a local folder or file, ``revision`` a branch, tag or commit of the hub data set.

    Raises:
        DataError: nothing is found there, or a row is not of the benchmark's form (named by file and line).

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
        raise DataError(f"{benchmark.name}: has no {split} rows on the hub; give data: a folder with {split}.jsonl")
    from llmjobs.hub.rows import dataset_rows

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
    """Bring rows to canonical form, keep those of the subject, and hash them."""
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
                f"{place}: no column {error.args[0]!r} among {_columns(raw)}; {benchmark.name} needs it"
            ) from None
        except (ValueError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise DataError(f"{place}: not a row of {benchmark.name} ({str(error)[:200]})") from None
    rows, lines = benchmark.part(rows, split), benchmark.part(lines, split)
    if not rows:
        raise DataError(f"{origin}: no {split} rows of {benchmark.name} {subject}; check data: and subjects:")
    return RowSet(rows, hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest(), origin, revision)


def find_files(benchmark: type[Benchmark], subject: str, split: str, data: Path) -> list[Path]:
    """Find the file of a subject and split below ``data``; several only where parquet is cut into shards.

    Raises:
        DataError: there is none; the message names what was looked for.

    """
    if data.is_file():
        if split != "test" and not benchmark.shares_file:
            raise DataError(f"{data}: one file holds the questions only; for shots give a folder with {split} rows too")
        return [data]
    if not data.is_dir():
        raise DataError(f"{data}: no such folder or file; data: names local rows, leave it out for the hub")
    patterns = list(_patterns(benchmark, subject, split))
    for pattern in patterns:
        found = sorted(p for p in data.glob(pattern) if p.suffix.lower() in READERS and p.is_file())
        if len(found) > 1 and any(p.suffix != ".parquet" for p in found):
            names = ", ".join(str(p.relative_to(data)) for p in found[:3])
            raise DataError(f"{data}: {names} all fit {benchmark.name} {subject} {split}; keep one of them")
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
