"""Download a model's files into the hub's cache: total size first, resumable, every hash checked."""

import fnmatch
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from llmjobs.errors import DataError, LlmjobsError, ModelError
from llmjobs.hub.repositories import Kind, RemoteFile, RemoteRepo, failure, inspect, remember, repo_folder, with_retries
from llmjobs.progress_bar import new_bar

PLAIN_INTERVAL_S = 10.0


class DownloadProgress:
    """Counts the bytes of all files of a download."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self.total, self.done = total, 0
        self._stream = stream or sys.stderr
        self._said = self._began = time.monotonic()
        self._name = ""
        self._bar = new_bar(self._stream, total, unit="B", unit_scale=True) if total > 0 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def name(self, text: str) -> None:
        """Show what is being downloaded."""
        self._name = text
        if self._bar is not None:
            self._bar.set_description_str(text)

    def advance(self, count: int) -> None:
        """Count ``count`` more bytes."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._said >= PLAIN_INTERVAL_S:
            self._said = time.monotonic()
            rate = self.done / max(self._said - self._began, 1e-9)
            print(
                f"{self._name}: {size_text(self.done)} of {size_text(self.total)}, {size_text(round(rate))}/s",
                file=self._stream,
                flush=True,
            )


def size_text(size: int) -> str:
    """``2.5 GB``: decimal units, as the hub shows them."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"


SAFETENSORS = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.safetensors")
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.(safetensors|bin)")
PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
BESIDE = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "additional_chat_templates/*.jinja")
"""Configuration, tokenizer and chat template; not the weights of other frameworks."""
MAX_CONFIG_BYTES = 16 * 1024**2
MAX_TEXT_BYTES = 128 * 1024**2
"""Limit for a file that is parsed as a whole; the largest tokenizers have about 35 MiB."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")
Advance = Callable[[int], object]


def model_files(repo: RemoteRepo, *, pickle_weights: bool = False, code: bool = False) -> list[RemoteFile]:
    """Choose the files that a model needs: safetensors, config, tokenizer; ``code`` adds ``*.py``.

    Raises:
        ModelError: it has no safetensors and pickles are not allowed, or a config or tokenizer file is too large.

    """
    weights = [f for f in repo.files if SAFETENSORS.fullmatch(f.path)]
    if not weights:
        weights = [f for f in repo.files if "/" not in f.path and f.path.endswith(".safetensors")]
    if not weights and pickle_weights:
        weights = [f for f in repo.files if PICKLES.fullmatch(f.path)]
    if not weights:
        if pickle_weights:
            raise ModelError(f"{repo.id}: has no safetensors weights and no pytorch_model.bin; use another model")
        raise ModelError(
            f"{repo.id}: has no safetensors weights; use another model, or allow other weights with pickle_weights: "
            "true (they can run code)"
        )
    patterns = (*BESIDE, "*.py") if code else BESIDE
    beside = [
        f for f in repo.files if any(fnmatch.fnmatch(f.path, p) and f.path.count("/") == p.count("/") for p in patterns)
    ]
    for file in beside:
        allowed = MAX_CONFIG_BYTES if file.path.endswith("config.json") else MAX_TEXT_BYTES
        if file.size_bytes > allowed:
            raise _too_large(repo.id, file.path, file.size_bytes, allowed)
    return beside + weights


def missing_files(repo: RemoteRepo, files: list[RemoteFile]) -> list[RemoteFile]:
    """Return the files that the cache does not have at this commit."""
    folder = repo_folder(repo.kind, repo.id) / "snapshots" / repo.commit
    return [file for file in files if not (folder / file.path).exists()]


def missing_bytes(repo: RemoteRepo, files: list[RemoteFile]) -> int:
    """Return the bytes that are still to be downloaded; partial files of a stopped download are subtracted."""
    blobs = repo_folder(repo.kind, repo.id) / "blobs"
    return sum(max(file.size_bytes - _part_size(blobs, file), 0) for file in missing_files(repo, files))


def fetch_files(
    repo: RemoteRepo, files: list[RemoteFile], revision: str | None = None, advance: Advance | None = None
) -> Path:
    """Download missing files and return the snapshot's folder; ``advance`` is called with the bytes that arrived.

    Raises:
        ModelError, DataError: the hub refuses, the connection keeps breaking, or a file's hash is wrong.

    """
    for file in missing_files(repo, files):
        try:
            _fetch(repo, file, advance or (lambda _: None))
        except LlmjobsError:
            raise
        except Exception as error:
            raise failure(repo.kind, repo.id, error) from error
    if revision != repo.commit:
        remember(repo.kind, repo.id, revision, repo.commit)
    return repo_folder(repo.kind, repo.id) / "snapshots" / repo.commit


def ensure_model(model_id: str, commit: str, *, pickle_weights: bool = False, code: bool = False) -> Path:
    """Return the folder of a complete model in the cache, after downloading what is missing, with a bar.

    Raises:
        ModelError: it cannot be downloaded, or it is incomplete and the network is off.

    """
    if is_whole(model_id, commit):
        return repo_folder("model", model_id) / "snapshots" / commit
    repo = inspect("model", model_id, commit)
    files = model_files(repo, pickle_weights=pickle_weights, code=code)
    with DownloadProgress(missing_bytes(repo, files)) as progress:
        progress.name(model_id)
        return fetch_files(repo, files, commit, progress.advance)


def read_small(kind: Kind, repo_id: str, name: str, commit: str) -> Path:
    """Download one small file of a repository (its config) into the cache and return its path.

    Raises:
        ModelError, DataError: the hub refuses, or the file is larger than any config.

    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    cached = repo_folder(kind, repo_id) / "snapshots" / commit / name
    if cached.is_file():
        return cached
    try:
        url = hf_hub_url(repo_id, name, repo_type=kind, revision=commit)
        size = with_retries(lambda: get_hf_file_metadata(url)).size or 0
        if size > MAX_CONFIG_BYTES:
            raise _too_large(repo_id, name, size, MAX_CONFIG_BYTES)
        with _hidden_bars():
            return Path(with_retries(lambda: hf_hub_download(repo_id, name, repo_type=kind, revision=commit)))
    except LlmjobsError:
        raise
    except Exception as error:
        raise failure(kind, repo_id, error) from error


def _too_large(repo_id: str, name: str, size: int, allowed: int) -> ModelError:
    return ModelError(
        f"{repo_id}: {name} is {size / 1024**2:,.0f} MiB, more than the {allowed >> 20} MiB allowed; use another model"
    )


def is_whole(model_id: str, commit: str) -> bool:
    """Whether the cache has a model's configuration, a tokenizer and all of its weights at a commit."""
    folder = repo_folder("model", model_id) / "snapshots" / commit
    if not (folder / "config.json").is_file() or not any((folder / name).is_file() for name in TOKENIZERS):
        return False
    names = {path.name for path in folder.iterdir() if path.is_file()}
    safe = any(name.endswith(".safetensors") for name in names)
    if not safe and not any(PICKLES.fullmatch(name) for name in names):
        return False
    kind = "safetensors" if safe else "bin"
    shards = [found for name in names if (found := SHARD.fullmatch(name)) and found[4] == kind]
    wanted = {f"{m[1]}-{number:05d}-of-{m[3]}.{kind}" for m in shards for number in range(1, int(m[3]) + 1)}
    if not wanted and safe and not any(folder.glob("*.safetensors.index.json")):
        return True
    for index in folder.glob(f"*.{kind}.index.json"):
        if index.name.removesuffix(".index.json") not in names:
            wanted |= _shards_of(index)
    return wanted <= names


def _shards_of(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return {f"a readable {index.name}"}


def _fetch(repo: RemoteRepo, file: RemoteFile, advance: Advance) -> None:
    from huggingface_hub import hf_hub_download

    blobs = repo_folder(repo.kind, repo.id) / "blobs"
    if file.sha256 and not (blobs / file.sha256).exists():
        _fetch_large(repo, file, blobs, advance)
    with _hidden_bars():
        path = with_retries(lambda: hf_hub_download(repo.id, file.path, repo_type=repo.kind, revision=repo.commit))
    if not file.sha256:
        advance(file.size_bytes)
        _check_blob(repo.id, file.path, Path(os.path.realpath(path)), file.blob_id)


def _fetch_large(repo: RemoteRepo, file: RemoteFile, blobs: Path, advance: Advance) -> None:
    """Download a large file into its part file, resuming it, and rename it to the blob's name if the hash is right."""
    blobs.mkdir(parents=True, exist_ok=True)
    part = _part(blobs, file)
    if _part_size(blobs, file) > file.size_bytes:
        part.unlink()
    with _only_one(part, f"{repo.id}/{file.path}"):
        with_retries(lambda: _continue(repo, file, part, advance))
        _check_blob(repo.id, file.path, part, file.sha256)
        part.replace(blobs / str(file.sha256))


def _continue(repo: RemoteRepo, file: RemoteFile, part: Path, advance: Advance) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get

    headers: dict[str, str] = _utils().build_hf_headers()
    url = hf_hub_url(repo.id, file.path, repo_type=repo.kind, revision=repo.commit)
    location = get_hf_file_metadata(url, headers=headers).location
    if location.split("/")[2] != url.split("/")[2]:
        headers.pop("authorization", None)
    with part.open("ab") as stream:
        http_get(
            location,
            stream,
            resume_size=stream.tell(),
            headers=headers,
            expected_size=file.size_bytes,
            displayed_filename=file.path,
            _tqdm_bar=_Bar(advance),  # type: ignore[arg-type]
        )
        stream.flush()
        os.fsync(stream.fileno())


class _Bar:
    """The part of a progress bar that ``http_get`` uses."""

    def __init__(self, advance: Advance) -> None:
        self.update = advance


def verify_blobs(folder: Path) -> None:
    """Check every blob below ``folder`` that was not checked before against the hash in its name.

    Raises:
        DataError: one differs; it is deleted, so that the next try downloads it again.

    """
    stamp = folder / ".verified"
    known = set(stamp.read_text(encoding="utf-8").split()) if stamp.is_file() else set()
    for path in sorted((folder / "blobs").glob("*")):
        if path.name not in known and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", path.name):
            try:
                _check_blob(folder.name.replace("--", "/"), path.name[:12], path, path.name)
            except ModelError as error:
                raise DataError(str(error)) from None
            known.add(path.name)
    if known:
        stamp.write_text("\n".join(sorted(known)), encoding="utf-8")


def _check_blob(repo_id: str, name: str, path: Path, expected: str | None) -> None:
    """Compare a file with its SHA-256 (64 digits) or git hash (40 digits); delete it if they differ."""
    if expected is None:
        return
    digest = hashlib.sha256() if len(expected) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        path.unlink()
        raise ModelError(
            f"{repo_id}: {name} was damaged during download (its hash differs) and was deleted; run the command again"
        )


def _part(blobs: Path, file: RemoteFile) -> Path:
    return blobs / f"{file.sha256}.llmjobs-part"


def _part_size(blobs: Path, file: RemoteFile) -> int:
    part = _part(blobs, file)
    return part.stat().st_size if file.sha256 and part.exists() else 0


@contextmanager
def _only_one(part: Path, name: str) -> Iterator[None]:
    """Keep a second process from writing into the same part file."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(f"{part}.lock", timeout=0):
            yield
    except Timeout:
        raise ModelError(
            f"{name}: another process is downloading this file; wait for it, then run the same command again"
        ) from None


@contextmanager
def _hidden_bars() -> Iterator[None]:
    utils = _utils()
    hidden = utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            utils.enable_progress_bars()


def _utils() -> Any:
    return import_module("huggingface_hub.utils")
