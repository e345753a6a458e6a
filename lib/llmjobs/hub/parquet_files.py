"""Parquet files, never more of them than fits: a small file can claim, or unpack to, any size.

A dictionary page holds a large value once that many rows name, so the sizes in the metadata are not enough: batches
are decoded a few rows at a time, and what they come to is counted.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from llmjobs.errors import DataError

MAX_BYTES = 256 * 1024**2
MAX_CELL_CHARS = 1024**2
MAX_ROWS = 1_000_000
BATCH = 64
"""Rows decoded at a time."""


def batches(path: Path) -> Iterator[Any]:
    """Yield the file's record batches as they are read.

    Raises:
        DataError: not parquet, more rows or bytes than allowed, or a cell that is too large.

    """
    pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    number = total = 0
    try:
        schema = pq.read_schema(path)
        text = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        with pq.ParquetFile(path, read_dictionary=text) as table:
            _check_metadata(path, table.metadata)
            for batch in table.iter_batches(batch_size=BATCH):
                _check_cells(path, number, batch)
                number += batch.num_rows
                total += batch.nbytes + _named_bytes(batch)
                if total > 4 * MAX_BYTES:
                    raise DataError(f"{path}: unpacks to over {mib(total)}; keep fewer or smaller rows")
                yield batch
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: cannot be read as parquet ({first[:120]}); export it again") from None


def check(path: Path) -> None:
    """Read the file once and keep nothing of it.

    Raises:
        DataError: as :func:`batches`.

    """
    for _ in batches(path):
        pass


def _check_metadata(path: Path, meta: Any) -> None:
    size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
    if size > MAX_BYTES or meta.num_rows > MAX_ROWS:
        raise DataError(
            f"{path}: {meta.num_rows:,} rows of {mib(size)} are more than the {MAX_ROWS:,} rows or "
            f"{mib(MAX_BYTES)} allowed; keep fewer rows"
        )


def _check_cells(path: Path, number: int, batch: Any) -> None:
    pa, pc = import_module("pyarrow"), import_module("pyarrow.compute")
    for column in batch.columns:
        values = column.dictionary if pa.types.is_dictionary(column.type) else None
        longest = (pc.max(pc.binary_length(values)).as_py() or 0) if values is not None else column.nbytes // 16
        if longest > MAX_CELL_CHARS:
            raise DataError(f"{path}:{number + 1}: a cell of about {mib(longest)} is too large; keep smaller rows")


def _named_bytes(batch: Any) -> int:
    """Bytes of the texts that the rows name, each as often as it is named."""
    pa, pc = import_module("pyarrow"), import_module("pyarrow.compute")
    total = 0
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
            total += pc.sum(lengths).as_py() or 0
    return total


def mib(size: int) -> str:
    """``256 MiB``."""
    return f"{size / 1024**2:,.0f} MiB"
