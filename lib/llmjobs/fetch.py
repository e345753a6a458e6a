"""``fetch``: download everything that a manifest needs from the hub, so that its jobs can run offline."""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

from pydantic import BaseModel

from llmjobs.benchmarks.base import Benchmark
from llmjobs.benchmarks.rows import load_rows
from llmjobs.engines import adapters
from llmjobs.engines.locate import DEMO_PREFIX, Located
from llmjobs.engines.registry import engine_of, local_path
from llmjobs.errors import DataError, LlmjobsError, ModelError
from llmjobs.exit_codes import EXIT_ERROR, EXIT_OK, EXIT_UNITS_FAILED
from llmjobs.hub.datasets import is_cached
from llmjobs.hub.files import DownloadProgress, fetch_files, missing_bytes, size_text
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
from llmjobs.manifest.matrix import gguf_models
from llmjobs.manifest.mtbench import RULE_JUDGE

# What can be downloaded: the files of a model, the rows of a data set.

DATA_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".arrow")
Advance = Callable[[int], object]


@dataclass
class ModelItem:
    """A model's configuration, tokenizer and weights."""

    name: str
    commit: str
    revision: str | None
    repo: RemoteRepo | None
    """None if everything is cached and the hub was not asked."""
    files: list[RemoteFile]

    @property
    def key(self) -> tuple[str, str]:
        """Items with equal keys are the same."""
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
        """Bytes that are not in the cache."""
        return missing_bytes(self.repo, self.files) if self.repo else 0

    def fetch(self, advance: Advance) -> None:
        """Download the files."""
        if self.repo is not None:
            fetch_files(self.repo, self.files, self.revision, advance)

    def joined(self, other: "ModelItem") -> "ModelItem":
        """Combine the files of both."""
        return replace(self, files=list(dict.fromkeys([*self.files, *other.files])))

    def offline_line(self) -> str:
        """The error line if the network is off."""
        return f"{self.name}: is not completely cached and HF_HUB_OFFLINE is set; run this online first"


@dataclass
class DataItem:
    """The rows of one data set that a manifest needs."""

    name: str
    commit: str
    revision: str | None
    wanted: list[tuple[type[Benchmark], str, str]]
    """Benchmark, subject and the benchmark's own split."""
    total_bytes: int

    @property
    def key(self) -> tuple[str, str]:
        """Items with equal keys are the same."""
        return (self.name, self.commit)

    @property
    def missing_bytes(self) -> int:
        """Estimated missing bytes: the size of the data set times the share of subjects that are not cached."""
        absent = len(self._absent())
        return max(self.total_bytes * absent // len(self.wanted), absent) if absent else 0

    def fetch(self, advance: Advance) -> None:
        """Download the rows and read them once, so that a malformed row is reported now."""
        share = self.total_bytes // max(len(self.wanted), 1)
        for benchmark, subject, split in self._absent():
            load_rows(benchmark, subject, split, revision=self.commit)
            advance(share)
        remember("dataset", self.name, self.revision, self.commit)

    def joined(self, other: "DataItem") -> "DataItem":
        """Combine the subjects of both."""
        wanted = list(dict.fromkeys([*self.wanted, *other.wanted]))
        return replace(self, wanted=wanted, total_bytes=max(self.total_bytes, other.total_bytes))

    def offline_line(self) -> str:
        """The error line with the missing subjects if the network is off."""
        names = sorted({subject for _, subject, _ in self._absent()})
        shown = ", ".join(names[:5]) + (f" … ({len(names)})" if len(names) > 5 else "")
        return f"{self.name}: {shown}: not cached and HF_HUB_OFFLINE is set; run this online first"

    def _absent(self) -> list[tuple[type[Benchmark], str, str]]:
        return [one for one in self.wanted if not is_cached(self.name, *_place(*one), self.commit)]


def model_item(spec: ModelSpec) -> ModelItem | None:
    """Make the item of a model; None if it is not on the hub (a server, a folder, a bundled model).

    Raises:
        ModelError: the hub refuses, or it is not a model that can be evaluated.

    """
    if spec.endpoint or spec.id.startswith(DEMO_PREFIX) or local_path(spec):
        return None
    engine = engine_of(spec)
    name = engine.repository(spec)
    commit = resolve_model(name, spec.revision)
    item = ModelItem(name, commit, spec.revision, None, [])
    if engine.is_cached(spec, commit):
        engine.check_cached(spec, repo_folder("model", name) / "snapshots" / commit)
        return item
    if is_offline():
        raise ModelError(item.offline_line())
    repo = inspect("model", name, commit)
    if repo.gated:
        check_access("model", name)
    engine.check_repository(spec, commit)
    files = engine.wanted_files(spec, repo)
    return ModelItem(name, commit, spec.revision, repo, files)


def adapter_item(spec: ModelSpec) -> ModelItem | None:
    """Make the item of a model's LoRA adapter; None if it has none, or if the adapter is a folder.

    Raises:
        ModelError: the hub refuses, or it is not an adapter of the model.

    """
    if spec.endpoint or not spec.adapter or adapters.adapter_folder(spec):
        return None
    commit = resolve_model(spec.adapter, spec.adapter_revision)
    item = ModelItem(spec.adapter, commit, spec.adapter_revision, None, [])
    if adapters.weight_file(spec, Located(spec.adapter, commit, is_local=False)):
        adapters.locate_adapter(spec)
        return item
    if is_offline():
        raise ModelError(item.offline_line())
    repo = adapters.check_repository(spec, commit)
    return replace(item, repo=repo, files=adapters.wanted_files(spec, repo))


def data_item(spec: BenchmarkSpec) -> DataItem | None:
    """Make the item of a benchmark; None if its rows are bundled or in a local file.

    Raises:
        DataError: the hub refuses.

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
    """Whether a split is on the hub; bundled rows are read once here, so that a problem is reported now."""
    return benchmark.own_rows(subject, split) is None


def _place(benchmark: type[Benchmark], subject: str, split: str) -> tuple[str | None, str]:
    assert benchmark.hub is not None
    config = benchmark.hub.config
    return config and config.format(subject=subject), benchmark.hub.splits[split]


def _size(repo: RemoteRepo, wanted: list[tuple[type[Benchmark], str, str]]) -> int:
    """Estimated size of the wanted configurations: their folders, or all data files if there are no folders."""
    data = [file for file in repo.files if file.path.endswith(DATA_SUFFIXES)]
    folders = {f"{config}/" for config, _ in (_place(*one) for one in wanted) if config}
    inside = [file for file in data if any(file.path.startswith(folder) for folder in folders)]
    return sum(file.size_bytes for file in inside or data)


# `fetch` itself.

Item = ModelItem | DataItem
S = TypeVar("S", bound=BaseModel)
ROOM_TO_SPARE_BYTES = 512 * 1024**2
"""Space to leave free on the disk, for unpacked rows and for the system."""


def run(study: Manifest, *, dry_run: bool = False, stream: TextIO | None = None) -> int:
    """Download the models and rows of ``study`` after printing their sizes. Returns an exit code.

    Each failure is one line and does not stop the others. A stopped download resumes where it stopped.

    Raises:
        DataError: the disk does not have enough space.

    """
    out = stream or sys.stdout
    items, errors = _items(study)
    _print_sizes(items, out)
    if not dry_run:
        missing = sum(item.missing_bytes for item in items)
        _check_room(missing)
        if missing and is_offline():
            errors += [item.offline_line() for item in items if item.missing_bytes]
        else:
            errors += _fetch_all(items, missing)
    for line in errors:
        print(f"cannot be downloaded: {line}" if dry_run else f"not downloaded: {line}", file=out)
    if not errors and not dry_run:
        print("complete: with HF_HUB_OFFLINE=1 the jobs of this manifest run without a network", file=out)
    return EXIT_OK if not errors else EXIT_UNITS_FAILED if items else EXIT_ERROR


def _items(study: Manifest) -> tuple[list[Item], list[str]]:
    """Collect the items of a manifest, each once, and an error line for each one that is not available."""
    models: dict[tuple[str, str], ModelItem] = {}
    data: dict[tuple[str, str], DataItem] = {}
    errors: list[str] = []
    specs = [*walk(study, ModelSpec), *gguf_models(study.models, study.matrix.rungs if study.matrix else [])]
    for model in (one for one in specs if one.id != RULE_JUDGE):
        for make in (model_item, adapter_item):
            try:
                if one := make(model):
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


def _print_sizes(items: Sequence[Item], out: TextIO) -> None:
    width = max((len(item.name) for item in items), default=0)
    for item in items:
        left = f"{size_text(item.missing_bytes)} to download" if item.missing_bytes else "cached"
        print(f"{item.name.ljust(width)}  {size_text(item.total_bytes):>9}  {item.commit[:12]}  {left}", file=out)
    total, missing = sum(i.total_bytes for i in items), sum(i.missing_bytes for i in items)
    print(f"total {size_text(total)}, {size_text(missing)} to download", file=out, flush=True)


def _check_room(missing: int) -> None:
    cache = repo_folder("model", "x").parent
    there = next((folder for folder in (cache, *cache.parents) if folder.exists()), Path("/"))
    free = shutil.disk_usage(there).free
    if missing and missing + ROOM_TO_SPARE_BYTES > free:
        raise DataError(
            f"{cache}: {size_text(missing)} to download, {size_text(free)} free; free some space, or set HF_HOME to "
            "another disk"
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
