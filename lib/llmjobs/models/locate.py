"""Where a model's files are: a demo model that comes along, a folder, or the hub."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llmjobs.demo import DEMO_MODELS
from llmjobs.errors import ModelError
from llmjobs.manifest.model_section import ModelSpec
from llmjobs.manifest.suggest import not_one_of
from llmjobs.models.model_files import check_model_files

DEMO_PREFIX = "llmjobs/"
_HASHED = ("*.safetensors", "*.json", "*.bin", "*.model", "*.jinja", "*.py", "*.txt")


@dataclass(frozen=True)
class Located:
    """What ``from_pretrained`` takes: a folder or a hub id with a pinned revision."""

    source: str
    revision: str | None
    """Commit on the hub, or ``sha256:…`` over a folder's files."""
    is_local: bool


def locate(spec: ModelSpec) -> Located:
    """Find a model without loading it; a hub revision becomes a commit.

    Raises:
        ModelError: a demo name that does not exist, a folder without a config, files that cannot be read, or the hub
            says no.

    """
    if spec.endpoint:
        raise ModelError(
            f"{spec.name}: is an endpoint; log-likelihoods need a local model (use it in converse or mtbench)"
        )
    if spec.id.startswith(DEMO_PREFIX):
        name = spec.id.removeprefix(DEMO_PREFIX)
        if name not in DEMO_MODELS:
            raise ModelError(f"{spec.name}: id: {not_one_of(spec.id, [DEMO_PREFIX + n for n in DEMO_MODELS])}")
        folder = DEMO_MODELS[name]
        return Located(str(folder), folder_hash(folder), is_local=True)
    folder = Path(spec.id).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{spec.name}: {folder} has no config.json; name the folder that save_pretrained wrote")
        try:
            check_model_files(spec.name, folder)
            return Located(str(folder), folder_hash(folder), is_local=True)
        except OSError as error:
            where = error.filename or folder
            raise ModelError(f"{spec.name}: {where}: {error.strerror}; let this user read it: chmod a+r") from None
    if spec.id.startswith(("/", "./", "../", "~")):
        raise ModelError(f"{spec.name}: there is no folder {spec.id}")
    from llmjobs.hub.repositories import resolve_model

    return Located(spec.id, resolve_model(spec.id, spec.revision), is_local=False)


@lru_cache(maxsize=64)
def folder_hash(folder: Path) -> str:
    """``sha256:`` over the names and contents of a model folder's files, so that a changed file is noticed."""
    total = hashlib.sha256()
    for path in sorted(p for pattern in _HASHED for p in folder.glob(pattern) if p.is_file()):
        with path.open("rb") as stream:
            total.update(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{total.hexdigest()}"
