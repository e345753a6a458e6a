"""``fetch``: bring everything that a manifest needs from the hub into the cache, so that its jobs run offline."""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

from pydantic import BaseModel

from llmjobs.benchmarks.base import Benchmark
from llmjobs.benchmarks.rows import load_rows
from llmjobs.engines.locate import DEMO_PREFIX
from llmjobs.engines.registry import engine_of, local_path
from llmjobs.errors import EXIT_ERROR, EXIT_OK, EXIT_UNITS_FAILED, DataError, LlmjobsError, ModelError
from llmjobs.hub.datasets import is_cached
from llmjobs.hub.files import DownloadProgress, fetch_files, is_whole, missing_bytes, size_text
from llmjobs.hub.repositories import (
    RemoteFile,
    RemoteRepo,
    cached_snapshot,
    check_access,
    inspect,
    is_offline,
    remember,
    repo_folder,
    resolve_dataset,
    resolve_model,
)
from llmjobs.manifest import BenchmarkSpec, Manifest, ModelSpec
from llmjobs.manifest.mtbench import RULE_JUDGE

# The things that can be fetched: a model's files, a data set's rows.

DATA_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".arrow")
Advance = Callable[[int], object]


@dataclass
class ModelItem:
    """A model's configuration, tokenizer and weights."""

    name: str
    commit: str
    revision: str | None
    repo: RemoteRepo | None
    """None where everything is cached and the hub was not asked."""
    files: list[RemoteFile]

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same as another."""
        return (self.name, self.commit)

    @property
    def total_bytes(self) -> int:
        """Bytes of all its files."""
        if self.repo is None:
            folder = cached_snapshot("model", self.name, self.commit)
            return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder else 0
        return sum(file.size_bytes for file in self.files)

    @property
    def missing_bytes(self) -> int:
        """Bytes that the cache lacks."""
        return missing_bytes(self.repo, self.files) if self.repo else 0

    def fetch(self, advance: Advance) -> None:
        """Bring the files."""
        if self.repo is not None:
            fetch_files(self.repo, self.files, self.revision, advance)

    def joined(self, other: "ModelItem") -> "ModelItem":
        """Take the files of both."""
        return replace(self, files=list(dict.fromkeys([*self.files, *other.files])))

    def offline_line(self) -> str:
        """Tell that it is not whole."""
        return f"{self.name}: is not whole in the cache and HF_HUB_OFFLINE is set; run this with network first"


@dataclass
class DataItem:
    """The rows that a manifest asks of one data set."""

    name: str
    commit: str
    revision: str | None
    wanted: list[tuple[type[Benchmark], str, str]]
    """Benchmark, subject and the benchmark's own split."""
    total_bytes: int

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same as another."""
        return (self.name, self.commit)

    @property
    def missing_bytes(self) -> int:
        """About how much is missing: the data set's share of subjects that are not cached."""
        absent = len(self._absent())
        return max(self.total_bytes * absent // len(self.wanted), absent) if absent else 0

    def fetch(self, advance: Advance) -> None:
        """Bring the rows and read them once, so that a row of a wrong form is told now."""
        share = self.total_bytes // max(len(self.wanted), 1)
        for benchmark, subject, split in self._absent():
            load_rows(benchmark, subject, split, revision=self.commit)
            advance(share)
        remember("dataset", self.name, self.revision, self.commit)

    def joined(self, other: "DataItem") -> "DataItem":
        """Take the subjects of both."""
        wanted = list(dict.fromkeys([*self.wanted, *other.wanted]))
        return replace(self, wanted=wanted, total_bytes=max(self.total_bytes, other.total_bytes))

    def offline_line(self) -> str:
        """Tell which subjects are missing."""
        names = sorted({subject for _, subject, _ in self._absent()})
        shown = ", ".join(names[:5]) + (f" … ({len(names)})" if len(names) > 5 else "")
        return f"{self.name}: {shown}: not in the cache and HF_HUB_OFFLINE is set; run this with network first"

    def _absent(self) -> list[tuple[type[Benchmark], str, str]]:
        return [one for one in self.wanted if not is_cached(self.name, *_place(*one), self.commit)]


def model_item(spec: ModelSpec) -> ModelItem | None:
    """Make the item of a model; None where nothing of it lies on the hub.

    Raises:
        ModelError: the hub says no, or it is not a model that can be evaluated.

    """
    if spec.endpoint or spec.id.startswith(DEMO_PREFIX) or local_path(spec):
        return None
    commit = resolve_model(spec.id, spec.revision)
    item = ModelItem(spec.id, commit, spec.revision, None, [])
    if is_whole(spec.id, commit):
        engine_of(spec).check_cached(spec, repo_folder("model", spec.id) / "snapshots" / commit)
        return item
    if is_offline():
        raise ModelError(item.offline_line())
    repo = inspect("model", spec.id, commit)
    if repo.gated:
        check_access("model", spec.id)
    engine_of(spec).check_repository(spec, commit)
    files = engine_of(spec).wanted_files(spec, repo)
    return ModelItem(spec.id, commit, spec.revision, repo, files)


def data_item(spec: BenchmarkSpec) -> DataItem | None:
    """Make the item of a benchmark; None where its rows come along or from a local file.

    Raises:
        DataError: the hub says no.

    """
    benchmark = spec.benchmark()
    if spec.data or spec.file or benchmark.hub is None:
        return None
    options = benchmark(spec.options()).options
    splits = ["test"]
    if options.num_fewshot and benchmark.fewshot_split:
        splits.append(benchmark.fewshot_split)
    wanted = [(benchmark, s, split) for s in spec.subject_names() for split in splits if _on_hub(benchmark, s, split)]
    commit = resolve_dataset(benchmark.hub.path, spec.revision)
    size = 0 if is_offline() else _size(inspect("dataset", benchmark.hub.path, commit), wanted)
    return DataItem(benchmark.hub.path, commit, spec.revision, wanted, size)


def _on_hub(benchmark: type[Benchmark], subject: str, split: str) -> bool:
    """Whether a split is the hub's; one that comes along is read once here, so that what it lacks is told now."""
    return benchmark.own_rows(subject, split) is None


def _place(benchmark: type[Benchmark], subject: str, split: str) -> tuple[str | None, str]:
    assert benchmark.hub is not None
    config = benchmark.hub.config
    return config and config.format(subject=subject), benchmark.hub.splits[split]


def _size(repo: RemoteRepo, wanted: list[tuple[type[Benchmark], str, str]]) -> int:
    """About how large the wanted configurations are: their folders, or all data files where there are none."""
    data = [file for file in repo.files if file.path.endswith(DATA_SUFFIXES)]
    folders = {f"{config}/" for config, _ in (_place(*one) for one in wanted) if config}
    inside = [file for file in data if any(file.path.startswith(folder) for folder in folders)]
    return sum(file.size_bytes for file in inside or data)


# `fetch`: everything that a manifest needs from the hub into the cache, so that its jobs run without network.

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
