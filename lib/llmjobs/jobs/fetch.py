"""``fetch``: everything that a manifest needs from the hub into the cache, so that its jobs run without network."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from pydantic import BaseModel

from llmjobs.errors import EXIT_ERROR, EXIT_OK, EXIT_UNITS_FAILED, DataError, LlmjobsError, ModelError
from llmjobs.hub.progress import DownloadProgress, size_text
from llmjobs.hub.repositories import is_offline, repo_folder
from llmjobs.jobs.fetch_items import DataItem, ModelItem, data_item, model_item
from llmjobs.manifest import BenchmarkSpec, Manifest, ModelSpec
from llmjobs.manifest.mtbench_section import RULE_JUDGE

Item = ModelItem | DataItem
S = TypeVar("S", bound=BaseModel)
ROOM_TO_SPARE_BYTES = 512 * 1024**2
"""Left free on the disk: unpacked rows, and the system's own needs."""


def run(study: Manifest, *, dry_run: bool = False, stream: TextIO | None = None) -> int:
    """Fetch the models and rows of ``study``; tell the sizes first. Returns an exit code.

    What cannot be fetched is told in one line each and does not stop the others. A stopped fetch goes on where it was.

    Raises:
        DataError: the disk has no room.

    """
    out = stream or sys.stdout
    items, errors = _items(study)
    _tell(items, out)
    if not dry_run:
        missing = sum(item.missing_bytes for item in items)
        _check_room(missing)
        if missing and is_offline():
            errors += [item.offline_line() for item in items if item.missing_bytes]
        else:
            errors += _fetch_all(items, missing)
    for line in errors:
        print(f"cannot be fetched: {line}" if dry_run else f"not fetched: {line}", file=out)
    if not errors and not dry_run:
        print("all there: set HF_HUB_OFFLINE=1 and the jobs of this manifest run without network", file=out)
    return EXIT_OK if not errors else EXIT_UNITS_FAILED if items else EXIT_ERROR


def _items(study: Manifest) -> tuple[list[Item], list[str]]:
    """Collect what the manifest needs, each once, and a line for what cannot even be asked for."""
    models: dict[tuple[str, str], ModelItem] = {}
    data: dict[tuple[str, str], DataItem] = {}
    errors: list[str] = []
    for model in (one for one in walk(study, ModelSpec) if one.id != RULE_JUDGE):
        try:
            if one := model_item(model):
                models[one.key] = models[one.key].joined(one) if one.key in models else one
        except LlmjobsError as error:
            errors.append(str(error))
    for benchmark in walk(study, BenchmarkSpec):
        try:
            if rows := data_item(benchmark):
                data[rows.key] = data[rows.key].joined(rows) if rows.key in data else rows
        except LlmjobsError as error:
            errors.append(str(error))
    return [*models.values(), *data.values()], list(dict.fromkeys(errors))


def walk(value: Any, kind: type[S]) -> Iterator[S]:
    """Every section of one kind anywhere in a manifest, in order."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from walk(getattr(value, name), kind)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for one in value:
            yield from walk(one, kind)


def _tell(items: Sequence[Item], out: TextIO) -> None:
    width = max((len(item.name) for item in items), default=0)
    for item in items:
        left = f"{size_text(item.missing_bytes)} to fetch" if item.missing_bytes else "cached"
        print(f"{item.name.ljust(width)}  {size_text(item.total_bytes):>9}  {item.commit[:12]}  {left}", file=out)
    total, missing = sum(i.total_bytes for i in items), sum(i.missing_bytes for i in items)
    print(f"total {size_text(total)}, {size_text(missing)} to fetch", file=out, flush=True)


def _check_room(missing: int) -> None:
    cache = repo_folder("model", "x").parent
    there = next((folder for folder in (cache, *cache.parents) if folder.exists()), Path("/"))
    free = shutil.disk_usage(there).free
    if missing and missing + ROOM_TO_SPARE_BYTES > free:
        raise DataError(
            f"{cache}: {size_text(missing)} to fetch, {size_text(free)} free; free some, or set HF_HOME to another disk"
        )


def _fetch_all(items: Sequence[Item], missing: int) -> list[str]:
    errors = []
    with DownloadProgress(missing) as progress:
        for item in items:
            progress.name(item.name)
            try:
                item.fetch(progress.advance)
            except (DataError, ModelError) as error:
                errors.append(str(error))
    return errors
