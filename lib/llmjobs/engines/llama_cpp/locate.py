"""Where a GGUF file is: a path, a file of a repository on the hub, or the store of Ollama or LM Studio."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from llmjobs.engines.llama_cpp.demo_files import demo_file
from llmjobs.engines.llama_cpp.gguf import SPLIT, part_paths
from llmjobs.engines.locate import DEMO_PREFIX, Located
from llmjobs.errors import ModelError
from llmjobs.hub.files import DownloadProgress, fetch_files, missing_bytes
from llmjobs.hub.repositories import (
    RemoteFile,
    RemoteRepo,
    cached_snapshot,
    inspect,
    is_offline,
    repo_folder,
    resolve_model,
)
from llmjobs.manifest.engine_names import LM_STUDIO, OLLAMA
from llmjobs.manifest.models import ModelSpec

_NOT_THE_MODEL = ("mmproj", "imatrix")
"""Parts of the names of ``.gguf`` files that are not models."""
_ON_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(:(?P<which>[\w./ +-]+))?")


@dataclass(frozen=True)
class HubName:
    """A repository and one of its GGUF files: a name, a part of names such as ``Q4_K_M``, or None for the only one."""

    repo: str
    which: str | None


def hub_name(model_id: str) -> HubName | None:
    """Read ``OWNER/NAME``, ``OWNER/NAME:Q4_K_M`` or ``OWNER/NAME:file.gguf``; None for anything else."""
    match = _ON_HUB.fullmatch(model_id.removeprefix("hf.co/"))
    return HubName(match["repo"], match["which"]) if match else None


def local_path(spec: ModelSpec) -> Path | None:
    """The file that an id names: by its path, as ``FOLDER:Q4_K_M``, in a store, of a demo model; None for the hub's.

    Raises:
        ModelError: there is no such file, or the store has nothing of this name.

    """
    if spec.id.startswith(OLLAMA):
        return _in_ollama(spec, spec.id.removeprefix(OLLAMA))
    if spec.id.startswith(LM_STUDIO):
        return _in_lm_studio(spec, spec.id.removeprefix(LM_STUDIO))
    if spec.id.startswith(DEMO_PREFIX):
        return demo_file(spec.id, spec.name)
    path = Path(spec.id).expanduser()
    try:
        if path.is_file():
            return path
        if path.is_dir():
            return _only_file(spec, path)
    except OSError as error:
        raise ModelError(f"{spec.name}: {spec.id[:200]}: {error.strerror}; check the path") from None
    folder, _, which = spec.id.rpartition(":")
    if folder and which and Path(folder).expanduser().is_dir():
        return Path(folder).expanduser() / choose(spec, _names_in(Path(folder).expanduser()), which)[0]
    named = hub_name(spec.id)
    if spec.id.startswith(("/", "./", "../", "~")) or named is None:
        raise ModelError(
            f"{spec.name}: there is no file {spec.id}; name a .gguf file, OWNER/NAME-GGUF:Q4_K_M on the hub, "
            "ollama:NAME or lmstudio:OWNER/NAME"
        )
    return None


def locate(spec: ModelSpec) -> Located:
    """Find a GGUF file without loading it; a hub revision becomes a commit.

    The source of one on the hub is ``OWNER/NAME:path/of/the/file.gguf``, the first part of a split one.

    Raises:
        ModelError: there is no such file or repository, a part is missing, or several files match.

    """
    if path := local_path(spec):
        return Located(str(path), _file_hash(spec, path), is_local=True)
    named = hub_name(spec.id)
    assert named is not None
    commit = resolve_model(named.repo, spec.revision)
    if cached := in_cache(spec, commit):
        name = cached.relative_to(repo_folder("model", named.repo) / "snapshots" / commit).as_posix()
    elif is_offline():
        raise ModelError(
            f"{spec.name}: {spec.id} is not in the cache and HF_HUB_OFFLINE is set; run 'llmjobs fetch' online first"
        )
    else:
        name = choose(spec, [file.path for file in inspect("model", named.repo, commit).files], named.which)[0]
    return Located(f"{named.repo}:{name}", commit, is_local=False)


def choose(spec: ModelSpec, names: Sequence[str], which: str | None) -> list[str]:
    """Choose one model's file among a repository's, all parts of a split one in order.

    Raises:
        ModelError: none fits, or several do; the line lists them.

    """
    models = [name for name in names if _is_model(name)]
    fitting = [name for name in models if which is None or _fits(name, which)]
    whole: dict[str, list[str]] = {}
    for name in fitting:
        match = SPLIT.fullmatch(name)
        whole.setdefault(f"{match[1]} in {match[3]} parts" if match else name, []).append(name)
    if len(whole) == 1:
        return sorted(fitting)
    repo = spec.id.partition(":")[0]
    shown = _listed(list(whole) if whole else models)
    if not models:
        raise ModelError(f"{spec.name}: {repo} has no GGUF files; use another repository, often {repo}-GGUF")
    if not whole:
        raise ModelError(f"{spec.name}: {repo} has no GGUF file {which}; it has {shown}")
    raise ModelError(f"{spec.name}: {repo} has several GGUF files; name one as {repo}:NAME (available: {shown})")


def wanted_files(spec: ModelSpec, repo: RemoteRepo) -> list[RemoteFile]:
    """The parts of the one file that an id names."""
    named = hub_name(spec.id)
    chosen = set(choose(spec, [file.path for file in repo.files], named.which if named else None))
    return sorted((file for file in repo.files if file.path in chosen), key=lambda file: file.path)


def first_part(located: Located) -> Path | None:
    """The file, or its first part, on this machine; None if the cache does not have all of it."""
    if located.is_local:
        return Path(located.source)
    repo, _, name = located.source.partition(":")
    folder = cached_snapshot("model", repo, located.revision)
    path = folder / name if folder else None
    if path is None or not path.is_file():
        return None
    try:
        part_paths(path)
    except ModelError:
        return None
    return path


def in_cache(spec: ModelSpec, revision: str) -> Path | None:
    """The file that an id on the hub names, if the cache has all of it at a commit.

    The hub is asked, if possible, whether a repository has only one file, because the cache may lack the others.
    """
    named = hub_name(spec.id)
    if named and named.which is None and not is_offline():
        return None
    folder = cached_snapshot("model", named.repo, revision) if named else None
    if named is None or folder is None:
        return None
    try:
        chosen = choose(spec, _names_in(folder), named.which)
    except ModelError:
        return None
    return first_part(Located(f"{named.repo}:{chosen[0]}", revision, is_local=False))


def fetch(spec: ModelSpec, located: Located) -> Path:
    """Return the file on this machine; one on the hub is fetched first, with a bar.

    Raises:
        ModelError: it cannot be fetched.

    """
    if path := first_part(located):
        return path
    name, _, file = located.source.partition(":")
    repo = inspect("model", name, located.revision)
    files = wanted_files(spec, repo)
    with DownloadProgress(missing_bytes(repo, files)) as progress:
        progress.name(spec.id)
        folder = fetch_files(repo, files, located.revision, progress.advance)
    return folder / file


def _is_model(name: str) -> bool:
    file = PurePosixPath(name).name.lower()
    return file.endswith(".gguf") and not any(word in file for word in _NOT_THE_MODEL)


def _fits(name: str, which: str) -> bool:
    """Whether ``which`` is the file's name, or a word at the end of its name or of its folder's."""
    if which.lower().endswith(".gguf"):
        match, wanted = SPLIT.fullmatch(name), SPLIT.fullmatch(which)
        if match and wanted:
            return match[1] == wanted[1]
        return which in (name, PurePosixPath(name).name)
    path = PurePosixPath(name)
    match = SPLIT.fullmatch(path.name)
    stem = match[1] if match else path.stem
    words = [stem, *path.parent.parts]
    return any(re.search(rf"(^|[._-]){re.escape(which)}$", word, re.IGNORECASE) for word in words)


def _names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf"))


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", … ({len(names)})" if len(names) > most else "")


def _only_file(spec: ModelSpec, folder: Path) -> Path:
    return folder / choose(spec, _names_in(folder), None)[0]


def _file_hash(spec: ModelSpec, path: Path) -> str:
    """``sha256:`` of the file, of all its parts one after the other."""
    try:
        stats = [(part, part.stat()) for part in part_paths(path)]
        return _hash_of(tuple((str(part), found.st_size, found.st_mtime_ns) for part, found in stats))
    except OSError as error:
        raise ModelError(f"{spec.name}: {error.filename or path}: {error.strerror}; check the path") from None


@lru_cache(maxsize=64)
def _hash_of(parts: tuple[tuple[str, int, int], ...]) -> str:
    total = hashlib.sha256()
    for name, _, _ in parts:
        with Path(name).open("rb") as stream:
            while block := stream.read(1 << 22):
                total.update(block)
    return f"sha256:{total.hexdigest()}"


# The stores of other programs.


def _in_ollama(spec: ModelSpec, name: str) -> Path:
    """``NAME[:TAG]`` or ``OWNER/NAME[:TAG]``, as ``ollama list`` writes it."""
    store = Path(os.environ.get("OLLAMA_MODELS") or "~/.ollama/models").expanduser()
    model, _, tag = name.partition(":")
    parts = model.split("/")
    host = parts.pop(0) if len(parts) > 2 else "registry.ollama.ai"
    owner = parts.pop(0) if len(parts) > 1 else "library"
    manifest = store / "manifests" / host / owner / parts[0] / (tag or "latest")
    try:
        layers: Any = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
        digest = next(one["digest"] for one in layers if str(one["mediaType"]).endswith("image.model"))
    except FileNotFoundError:
        there = sorted({path.parent.name for path in (store / "manifests").glob("*/*/*/*")})
        shown = f"; it has {_listed(there)}" if there else ""
        raise ModelError(
            f"{spec.name}: Ollama's store {store} has no {name}{shown}; run 'ollama pull {name}'"
        ) from None
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        raise ModelError(f"{spec.name}: {manifest} cannot be read; run 'ollama pull {name}' again") from None
    blob = store / "blobs" / str(digest).replace(":", "-")
    if not blob.is_file():
        raise ModelError(f"{spec.name}: Ollama's store lacks the file of {name}; run 'ollama pull {name}'")
    return blob


def _in_lm_studio(spec: ModelSpec, name: str) -> Path:
    """``OWNER/NAME`` or ``OWNER/NAME:Q4_K_M``, the folders of LM Studio's store."""
    named = hub_name(name)
    places = [Path(one).expanduser() for one in ("~/.lmstudio/models", "~/.cache/lm-studio/models")]
    if own := os.environ.get("LMSTUDIO_MODELS"):
        places.insert(0, Path(own).expanduser())
    if named is None:
        raise ModelError(f"{spec.name}: {name} is not a name in LM Studio's store; write lmstudio:OWNER/NAME:Q4_K_M")
    for place in places:
        folder = place / named.repo
        if folder.is_dir():
            return folder / choose(spec, _names_in(folder), named.which)[0]
    raise ModelError(
        f"{spec.name}: LM Studio's store has no {named.repo} (looked in {places[0]}); fetch it there first"
    )
