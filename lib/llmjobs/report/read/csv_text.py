"""Read CSV files in any common encoding and delimiter, with notices about anything unusual."""

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from llmjobs.errors import DataError, printable
from llmjobs.report.read.json_files import MAX_LINES_BYTES
from llmjobs.report.study import RawRun
from llmjobs.terminal_text import agree, plural

DELIMITERS = (",", ";", "\t", "|")
CHUNK = 1 << 20
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(path: Path) -> str:
    """Return the encoding of a text file: by byte order mark, zero bytes (UTF-16), UTF-8, otherwise Windows-1252."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        start = file.read(4096)
        for mark, name in BOMS:
            if start.startswith(mark):
                return name
        even, odd = start[0::2].count(0), start[1::2].count(0)
        if max(even, odd) > len(start) / 8 and min(even, odd) == 0:
            return "utf-16-le" if odd else "utf-16-be"
        chunk = start
        try:
            while chunk:
                decoder.decode(chunk)
                chunk = file.read(CHUNK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


def delimiter_of(header: str, usual: str) -> str:
    """Return the delimiter that splits the header into the most columns; ``usual`` if several do."""
    counts = {mark: len(next(csv.reader([header], delimiter=mark, skipinitialspace=True), [])) for mark in DELIMITERS}
    best = max(counts.values())
    return usual if counts[usual] == best else max(counts, key=counts.__getitem__)


def csv_lines(path: Path, run: RawRun) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV or TSV by column name; rows of a different width are counted in a notice.

    Raises:
        DataError: not a regular file, too large, or not CSV.

    """
    csv.field_size_limit(10_000_000)
    if not path.is_file() or path.stat().st_size > MAX_LINES_BYTES:
        raise DataError(f"{path.name}: is not a regular file of at most {MAX_LINES_BYTES >> 30} GiB")
    with path.open("rb") as start:
        if start.read(4) == b"PK\3\4":
            raise DataError(
                f"{path.name}: is a zip archive, not text; if it is an Excel workbook, save it as CSV first"
            )
    encoding = encoding_of(path)
    if encoding == "cp1252":
        run.notice(path.name, "is not UTF-8; read as Windows-1252")
    try:
        with path.open(encoding=encoding, errors="replace", newline="") as file:
            yield from _rows(path, run, file)
    except csv.Error as error:
        raise DataError(f"{path.name}: cannot be read as CSV ({error})") from error


def _rows(path: Path, run: RawRun, file: TextIO) -> Iterator[dict[str, Any]]:
    header, mark = _header(path, file)
    wrong: list[int] = []
    begins: set[str] = set()
    number = 1
    for number, row in enumerate(csv.reader(file, delimiter=mark, skipinitialspace=True), start=2):
        if not any(cell.strip() for cell in row):
            continue
        begins.add(row[0].strip())
        if any("\n" in cell and _holds_rows(cell, mark, len(header), begins) for cell in row):
            raise DataError(f"{path.name}: row {number} contains further rows in one cell; a quote is not closed")
        if len(row) < len(header) or any(cell.strip() for cell in row[len(header) :]):
            wrong.append(number)
            continue
        cells: dict[str, Any] = dict(zip(header, row, strict=False))
        if mark == ";":
            cells[DECIMAL_COMMA] = True
        yield cells
    if wrong:
        shown = ", ".join(map(str, wrong[:5])) + (", …" if len(wrong) > 5 else "")
        run.notice(
            path.name,
            f"{len(wrong)} of {plural(number - 1, 'row')} {agree(len(wrong), 'has', 'have')} a different number"
            f" of cells than the header ({len(header)}),"
            f" perhaps because the file is cut off or a {mark!r} is not quoted (row {shown}); not counted",
        )


def _header(path: Path, file: TextIO) -> tuple[list[str], str]:
    """Return the column names and the delimiter, skipping blank lines and Excel's ``sep=;``."""
    first = file.readline()
    while first and not first.strip():
        first = file.readline()
    if first.strip().lower().startswith("sep=") and len(first.strip()) <= 5:
        first = file.readline()
    mark = delimiter_of(first, "\t" if path.suffix.lower() == ".tsv" else ",")
    header = [name.strip() for name in next(csv.reader([first], delimiter=mark, skipinitialspace=True), [])]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        shown = printable(", ".join(twice[:3]))
        raise DataError(f"{path.name}: the header names {shown} twice; give each column its own name")
    return header, mark


def _holds_rows(cell: str, mark: str, width: int, begins: set[str]) -> bool:
    """Return whether every further line of a cell, except empty ones, would be a row with the same beginning."""
    lines = [line for line in cell.splitlines()[1:] if line.strip()]
    return bool(lines) and all(
        line.count(mark) == width - 1 and line.partition(mark)[0].strip() in begins for line in lines
    )


DECIMAL_COMMA = "\0decimal comma"
"""Marks a row of a semicolon-separated file: its numbers may be written ``0,75``."""
