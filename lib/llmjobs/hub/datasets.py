"""Rows of data sets on the hub, read from parquet files at a pinned commit, with limits on their size."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from llmjobs.errors import DataError, plain_reason
from llmjobs.hub import repositories as hub
from llmjobs.hub.explain import explain
from llmjobs.hub.files import verify_blobs

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
                    raise DataError(f"{path}: unpacks to more than {mib(total)}; use fewer or shorter rows")
                yield batch
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as parquet ({plain_reason(error, 120)}); export it again") from None


def check(path: Path) -> None:
    """Read the file once to check it; nothing is kept.

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
            f"{mib(MAX_BYTES)} allowed; use fewer rows"
        )


def _check_cells(path: Path, number: int, batch: Any) -> None:
    pa, pc = import_module("pyarrow"), import_module("pyarrow.compute")
    for column in batch.columns:
        values = column.dictionary if pa.types.is_dictionary(column.type) else None
        longest = (pc.max(pc.binary_length(values)).as_py() or 0) if values is not None else column.nbytes // 16
        if longest > MAX_CELL_CHARS:
            raise DataError(
                f"{path}:{number + 1}: a cell of about {mib(longest)} is too large (limit {mib(MAX_CELL_CHARS)}); "
                "split or shorten it"
            )


def _named_bytes(batch: Any) -> int:
    """Bytes of the texts that the rows refer to, counted once per reference."""
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


log = logging.getLogger(__name__)
PLAIN = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt")
"""Kinds of files that are not compressed, so that their size is known."""


@dataclass(frozen=True)
class DatasetRows:
    """All rows of one split, and their commit."""

    rows: list[Mapping[str, Any]]
    revision: str


def dataset_rows(path: str, config: str | None, split: str, revision: str | None = None) -> DatasetRows:
    """Load a split; if the cache has it at that commit, the hub is not asked.

    Raises:
        DataError: no such data set, configuration, split or revision, no access, or not in the cache when offline.

    """
    commit = hub.resolve_dataset(path, revision)
    table = _cached_table(path, config, split, commit)
    if table is None:
        table = _load(path, config, split, commit)
        hub.remember("dataset", path, revision, commit)
    return DatasetRows(table.to_list(), commit)


def is_cached(path: str, config: str | None, split: str, commit: str) -> bool:
    """Whether a split can be read without the network."""
    return _cached_table(path, config, split, commit) is not None


def _load(path: str, config: str | None, split: str, commit: str) -> Any:
    place = "/".join(filter(None, (path, config, split)))
    try:
        with _quiet():
            table = hub.with_retries(lambda: _converted(place, path, config, split, commit))
    except DataError:
        verify_blobs(hub.repo_folder("dataset", path))  # a damaged download is reported as such
        raise
    except Exception as error:
        verify_blobs(hub.repo_folder("dataset", path))
        raise _explained(path, place, error) from error
    _check_commit(place, table, commit)
    verify_blobs(hub.repo_folder("dataset", path))
    return table


def _converted(place: str, path: str, config: str | None, split: str, commit: str) -> Any:
    """Let ``datasets`` convert its files, after checking the size of each."""
    import datasets

    builder = datasets.load_dataset_builder(path, config, revision=commit)
    for file in _files(builder):
        _check_file(place, path, file, commit)
    builder.download_and_prepare()
    return builder.as_dataset(split=split)


def _files(builder: Any) -> Iterator[str]:
    """Paths of its files in the repository; none if the cache has them converted."""
    for files in (builder.config.data_files or {}).values():
        for url in files:
            if (address := str(url)).startswith("hf://"):
                yield address.partition("@")[2].partition("/")[2]


def _check_file(place: str, path: str, file: str, commit: str) -> None:
    from huggingface_hub import hf_hub_download

    kind = PurePosixPath(file).suffix.lower()
    if kind not in (".parquet", *PLAIN):
        raise DataError(f"{place}: {file} is not parquet, CSV or JSON; compressed files are not unpacked")
    local = Path(hf_hub_download(path, file, repo_type="dataset", revision=commit))
    if kind == ".parquet":
        try:
            check(local)
        except DataError as error:
            raise DataError(str(error).replace(str(local), f"{path}/{file}")) from None
    elif local.stat().st_size > MAX_BYTES:
        raise DataError(f"{place}: {file} is larger than the {mib(MAX_BYTES)} allowed")


def _explained(path: str, place: str, error: Exception) -> DataError:

    if hub.is_offline():
        return DataError(f"{place}: is not cached and HF_HUB_OFFLINE is set; run 'llmjobs fetch' online first")
    if explain(path, path, "data set", error):
        return DataError(str(hub.failure("dataset", path, error)))
    try:
        hub.check_access("dataset", path)
    except DataError as refused:
        return refused
    first = error
    while isinstance(first.__cause__, Exception):
        first = first.__cause__
    return DataError(f"{place}: {plain_reason(first, 200)}")


def _check_commit(place: str, table: Any, commit: str) -> None:
    """Refuse rows of another commit: offline, ``datasets`` uses the latest one in its cache, whatever was asked for."""
    files = [Path(file["filename"]) for file in table.cache_files]
    if files and not any(commit in file.parts for file in files):
        raise DataError(f"{place}: the cache has another revision than {commit[:12]}; run 'llmjobs fetch' online")


def _cached_table(path: str, config: str | None, split: str, commit: str) -> Any | None:
    """Read the Arrow files that ``datasets`` keeps for a commit; None if they are missing or incomplete."""
    import datasets

    root = Path(datasets.config.HF_DATASETS_CACHE) / path.replace("/", "___") / (config or "default")
    for folder in root.glob(f"*/{commit}"):
        files = [
            p for p in sorted(folder.glob(f"*-{split}*.arrow")) if p.stem.endswith(f"-{split}") or "-of-" in p.stem
        ]
        if files and (folder / "dataset_info.json").is_file():
            try:
                return datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])
            except Exception as error:
                log.warning("%s: cannot be read (%s); loading it again", folder, type(error).__name__)
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bars of small files."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    level = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()
