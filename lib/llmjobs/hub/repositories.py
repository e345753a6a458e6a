"""The hub: the commit of a name, the sizes of its files, access to them, and what is already in the cache.

All requests go through ``huggingface_hub``, so ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` have
their usual meaning. The token itself is never printed, stored or put into a message.
"""

import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from llmjobs.errors import DataError, LlmjobsError, ModelError
from llmjobs.hub.explain import busy_reason, explain, is_connection_error, retry_after_s

log = logging.getLogger(__name__)
Kind = Literal["model", "dataset"]
T = TypeVar("T")
TRIES = 5
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
TRIES_WITH_CACHE = 2
"""Where the cache already has an answer, an unreachable hub is not waited for."""
SILENCE_S = 60.0
"""How long an unreachable hub is not asked again for what the cache has."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository; ``sha256`` if it is stored as a large file, otherwise ``blob_id`` (git)."""

    path: str
    size_bytes: int
    sha256: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True)
class RemoteRepo:
    """What the hub says about a repository at one commit."""

    kind: Kind
    id: str
    commit: str
    files: tuple[RemoteFile, ...]
    gated: bool


@dataclass(frozen=True)
class TokenState:
    """Whether there is a token and where it comes from; never the token."""

    source: str | None
    """``HF_TOKEN``, a file's path, or None."""
    account: str | None = None
    """Name of its account, if the hub was asked."""
    error: str | None = None


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def resolve_model(model_id: str, revision: str | None = None) -> str:
    """Return the current commit of a revision of a model; from the cache if the hub cannot be reached.

    Raises:
        ModelError: there is no such model or revision, no access, or neither network nor cache.

    """
    return _resolve("model", model_id, revision)


def resolve_dataset(dataset_id: str, revision: str | None = None) -> str:
    """Return the current commit of a revision of a data set, like :func:`resolve_model`.

    Raises:
        DataError: as there.

    """
    return _resolve("dataset", dataset_id, revision)


def inspect(kind: Kind, repo_id: str, revision: str | None = None, *, tries: int = TRIES) -> RemoteRepo:
    """Ask the hub for a repository's commit and files with their sizes and hashes.

    ``tries``: how often to ask if the hub is busy or cannot be reached.

    Raises:
        ModelError, DataError: the hub refuses; the line gives the reason and the remedy.

    """
    from huggingface_hub import HfApi

    api = HfApi()
    ask: Any = api.model_info if kind == "model" else api.dataset_info
    found = _asked(
        kind, repo_id, lambda: ask(repo_id, revision=revision, files_metadata=True, timeout=_timeout_s()), tries
    )
    files = tuple(
        RemoteFile(s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else None, s.blob_id) for s in found.siblings or []
    )
    return RemoteRepo(kind, repo_id, str(found.sha), files, bool(found.gated))


def check_access(kind: Kind, repo_id: str) -> None:
    """Check access to the files of a repository without reading one.

    Raises:
        ModelError, DataError: no access; the line gives the page where to request it.

    """
    from huggingface_hub import HfApi

    _asked(kind, repo_id, lambda: HfApi().auth_check(repo_id, repo_type=kind))


def token_state(*, ask: bool = False) -> TokenState:
    """Return where the token comes from; with ``ask``, also whose it is according to the hub."""
    from huggingface_hub import HfApi, constants, get_token

    try:
        if get_token() is None:
            return TokenState(None)
    except (OSError, ValueError) as error:
        return TokenState(
            str(constants.HF_TOKEN_PATH), error=f"cannot be read: {getattr(error, 'strerror', None) or error}"
        )
    names = [name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)]
    source = names[0] if names else str(constants.HF_TOKEN_PATH)
    if not ask or is_offline():
        return TokenState(source)
    try:
        account = with_retries(lambda: HfApi().whoami())
    except Exception as error:
        return TokenState(source, error=explain("token", "", "token", error) or "the hub did not return its account")
    return TokenState(source, account=str(account.get("name")))


def cached_snapshot(kind: Kind, repo_id: str, revision: str | None = None) -> Path | None:
    """Return the cache's folder of a revision, complete or not; None if the cache does not have it."""
    folder = repo_folder(kind, repo_id)
    commit = revision if revision and _COMMIT.fullmatch(revision) else _cached_commit(folder, revision)
    found = folder / "snapshots" / commit if commit else None
    return found if found and found.is_dir() else None


def remember(kind: Kind, repo_id: str, revision: str | None, commit: str) -> None:
    """Store the commit of a branch or tag in the cache, as the hub's own client does."""
    name = revision or "main"
    if name != commit:
        path = repo_folder(kind, repo_id) / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit, encoding="utf-8")


def repo_folder(kind: Kind, repo_id: str) -> Path:
    """Return the folder of the hub's cache that belongs to a repository."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo_id.replace('/', '--')}"


def with_retries(call: Callable[[], T], tries: int = TRIES) -> T:
    """Call ``call``, and try again if the hub is busy (429, 5xx) or the connection breaks; each wait is longer.

    If the hub asks for a longer wait than :data:`LONGEST_WAIT_S`, its error is raised at once and gives the wait.
    """
    wait_s = FIRST_WAIT_S
    for _ in range(tries - 1):
        try:
            return call()
        except Exception as error:
            asked_s = retry_after_s(error)
            if asked_s is None or asked_s > LONGEST_WAIT_S:
                raise
            pause_s = max(wait_s, asked_s)
            log.warning("%s; trying again in %.0f s", busy_reason(error), pause_s)
            time.sleep(pause_s)
            wait_s *= 2
    return call()


def failure(kind: Kind, repo_id: str, error: Exception) -> LlmjobsError:
    """Turn an exception of the hub's client into one line."""
    what = "data set" if kind == "dataset" else "model"
    said = " ".join(str(error).split())[:200] or "no reason given"
    line = explain(repo_id, repo_id, what, error) or f"{repo_id}: the hub's client failed: {said}; try again later"
    return DataError(line) if kind == "dataset" else ModelError(line)


def _resolve(kind: Kind, repo_id: str, revision: str | None) -> str:
    from huggingface_hub import constants

    cached = cached_snapshot(kind, repo_id, revision)
    if cached and (is_offline() or cached.name == revision):
        return cached.name
    if cached is None:
        return inspect(kind, repo_id, revision).commit
    if time.monotonic() >= _silent_until.get(constants.ENDPOINT, 0.0):
        try:
            return inspect(kind, repo_id, revision, tries=TRIES_WITH_CACHE).commit
        except LlmjobsError as error:
            if error.__cause__ is None or not is_connection_error(error.__cause__):
                raise
            _silent_until[constants.ENDPOINT] = time.monotonic() + SILENCE_S
    log.warning("%s: the hub cannot be reached; using revision %s from the cache", repo_id, cached.name[:12])
    return cached.name


_silent_until: dict[str, float] = {}
"""Address of a hub → until when (monotonic) it counts as unreachable."""


def _asked(kind: Kind, repo_id: str, call: Callable[[], T], tries: int = TRIES) -> T:
    try:
        return with_retries(call, tries)
    except Exception as error:
        raise failure(kind, repo_id, error) from error


def _cached_commit(folder: Path, revision: str | None) -> str | None:
    """Return the cached commit of a branch or tag; if none is noted, the only snapshot counts as the default branch."""
    ref = folder / "refs" / (revision or "main")
    if ref.is_file():
        return ref.read_text(encoding="utf-8").strip()
    snapshots = sorted(p.name for p in (folder / "snapshots").glob("*")) if revision is None else []
    return snapshots[0] if len(snapshots) == 1 else None


def _timeout_s() -> float:
    from huggingface_hub import constants

    return float(constants.HF_HUB_ETAG_TIMEOUT)
