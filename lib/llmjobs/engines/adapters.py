"""Find a model's LoRA adapter, and check that it belongs to the model. No torch; an engine applies it.

An adapter is a small folder that peft wrote: ``adapter_config.json`` and ``adapter_model.safetensors``. ``adapter:`` in
a manifest names it, by path or as a repository on the hub.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmjobs.engines.locate import Located, files_of, folder_hash
from llmjobs.errors import ModelError
from llmjobs.hub.files import fetch_files, read_small
from llmjobs.hub.repositories import (
    RemoteFile,
    RemoteRepo,
    cached_snapshot,
    check_access,
    inspect,
    is_offline,
    resolve_model,
)
from llmjobs.manifest.models import ModelSpec

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def settings_of(spec: ModelSpec, located: Located | None) -> dict[str, Any]:
    """What a unit declares besides the base model: engine settings, and the adapter with its revision."""
    if not spec.adapter:
        return spec.engine_settings
    revision = located.adapter.revision if located and located.adapter else None
    adapter = {"adapter": spec.adapter, "adapter_revision": revision, "merge_adapter": spec.merge_adapter}
    return spec.engine_settings | adapter


def locate_adapter(spec: ModelSpec) -> Located | None:
    """Find the adapter of a model without loading it, and check it; None if the model has none.

    Raises:
        ModelError: there is no such adapter, it is not a LoRA adapter, it belongs to another model, or the hub says no.

    """
    if not spec.adapter:
        return None
    if folder := adapter_folder(spec):
        files = {path.name for path in folder.iterdir()}
        _check(spec, str(folder), files, _read(spec, folder / CONFIG) if CONFIG in files else None)
        return Located(str(folder), folder_hash(folder), is_local=True)
    commit = resolve_model(spec.adapter, spec.adapter_revision)
    snapshot = cached_snapshot("model", spec.adapter, commit)
    if snapshot and (snapshot / CONFIG).is_file() and _weight_name({path.name for path in snapshot.iterdir()}, spec):
        _check(spec, spec.adapter, {path.name for path in snapshot.iterdir()}, _read(spec, snapshot / CONFIG))
    elif is_offline():
        raise ModelError(f"{spec.adapter}: is not completely cached and HF_HUB_OFFLINE is set; run this online first")
    else:
        check_repository(spec, commit)
    return Located(spec.adapter, commit, is_local=False)


def adapter_folder(spec: ModelSpec) -> Path | None:
    """The folder that ``adapter:`` names; None if it is a name on the hub.

    Raises:
        ModelError: it is neither.

    """
    text = str(spec.adapter)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"{spec.name}: adapter: {text} is a file; name the folder that peft's save_pretrained wrote")
    if not _ON_HUB.fullmatch(text):
        raise ModelError(
            f"{spec.name}: adapter: there is no folder {text}; check the path, or name one on the hub (OWNER/NAME)"
        )
    return None


def check_repository(spec: ModelSpec, commit: str) -> RemoteRepo:
    """Look at an adapter on the hub before anything is fetched; returns the repository.

    Raises:
        ModelError: as :func:`locate_adapter`.

    """
    name = str(spec.adapter)
    repo = inspect("model", name, commit)
    if repo.gated:
        check_access("model", name)
    files = {file.path for file in repo.files}
    config = _read(spec, read_small("model", name, CONFIG, commit)) if CONFIG in files else None
    _check(spec, name, files, config)
    return repo


def wanted_files(spec: ModelSpec, repo: RemoteRepo) -> list[RemoteFile]:
    """The adapter's config and weights; its tokenizer and other files are not used."""
    names = {file.path for file in repo.files}
    return [file for file in repo.files if file.path in (CONFIG, _weight_name(names, spec))]


def ensure_adapter(spec: ModelSpec, located: Located) -> Path:
    """Fetch the missing files of an adapter into the cache; return its folder.

    Raises:
        ModelError: the hub says no.

    """
    if located.is_local:
        return Path(located.source)
    folder = files_of(located)
    if folder is None or not _weight_name({path.name for path in folder.iterdir()}, spec):
        repo = check_repository(spec, str(located.revision))
        folder = fetch_files(repo, wanted_files(spec, repo), spec.adapter_revision)
    return folder


def weight_file(spec: ModelSpec, located: Located) -> Path | None:
    """The file of an adapter's weights on this machine; None if it has not been fetched yet."""
    folder = files_of(located)
    name = _weight_name({path.name for path in folder.iterdir()}, spec) if folder and folder.is_dir() else None
    return folder / name if folder and name else None


def adapter_bytes(spec: ModelSpec, located: Located) -> int:
    """Size of an adapter's weights: of the local file, otherwise as the hub reports it; 0 if neither is known."""
    if path := weight_file(spec, located):
        return path.stat().st_size
    if located.is_local or is_offline():
        return 0
    repo = inspect("model", located.source, str(located.revision))
    return sum(file.size_bytes for file in wanted_files(spec, repo) if file.path != CONFIG)


def _weight_name(files: set[str], spec: ModelSpec) -> str | None:
    if WEIGHTS in files:
        return WEIGHTS
    return PICKLED if PICKLED in files and spec.pickle_weights else None


def _read(spec: ModelSpec, path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ModelError(f"{spec.name}: adapter: {path} is not a JSON object; fetch the adapter again")
    return found


def _check(spec: ModelSpec, place: str, files: set[str], config: Mapping[str, Any] | None) -> None:
    who = f"{spec.name}: adapter: {place[:200]}"
    if config is None:
        other = "; it has a config.json, so it is a complete model; give it as id:" if "config.json" in files else ""
        raise ModelError(f"{who} has no {CONFIG}{other or '; name the folder that peft wrote'}")
    kind = str(config.get("peft_type") or "")[:40]
    if kind != "LORA":
        raise ModelError(f"{who} is an adapter of type {kind or 'unknown'!r}; only LoRA adapters work, use one")
    task = str(config.get("task_type") or "CAUSAL_LM")[:40]
    if task != "CAUSAL_LM":
        raise ModelError(f"{who} was trained for {task}, not for text generation (CAUSAL_LM); use another adapter")
    if not _weight_name(files, spec):
        if PICKLED in files:
            raise ModelError(
                f"{who} has no safetensors weights; pickle_weights: true allows {PICKLED} (loading it can run code), "
                "or use another adapter"
            )
        raise ModelError(f"{who} has no {WEIGHTS}; fetch the adapter again")
    base = str(config.get("base_model_name_or_path") or "")[:200]
    if _is_other(base, spec.id):
        raise ModelError(
            f"{who} was trained on {base}, but id: is {spec.id}; set id: {base}, or use an adapter of {spec.id}"
        )


def _is_other(base: str, model: str) -> bool:
    """Whether two names on the hub differ. A folder has no such name; there the shapes of the weights decide."""
    if not base or not _ON_HUB.fullmatch(base) or not _ON_HUB.fullmatch(model):
        return False
    if Path(base).is_dir() or Path(model).expanduser().is_dir():
        return False
    return base.lower() != model.lower()
