"""Where a model's files are, on any engine."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llmjobs.hub.repositories import cached_snapshot
from llmjobs.manifest.engine_names import STORES
from llmjobs.manifest.models import ModelSpec

DEMO_PREFIX = "llmjobs/"
_HASHED = ("*.safetensors", "*.json", "*.bin", "*.model", "*.jinja", "*.py", "*.txt")


@dataclass(frozen=True)
class Located:
    """A folder or file, or a hub id with a pinned revision."""

    source: str
    revision: str | None
    """Commit on the hub, or ``sha256:…`` over a folder's files."""
    is_local: bool
    adapter: "Located | None" = None
    """The LoRA adapter of the model."""


def is_on_hub(spec: ModelSpec) -> bool:
    """Whether a model's id counts as a name on the hub."""
    elsewhere = (DEMO_PREFIX, "/", "./", "../", "~", *STORES)
    places = (spec.id, spec.id.rpartition(":")[0])  # a folder of GGUF files goes on with a colon and which one
    return not (
        spec.endpoint
        or spec.id.startswith(elsewhere)
        or any(place and Path(place).expanduser().exists() for place in places)
    )


@lru_cache(maxsize=64)
def folder_hash(folder: Path) -> str:
    """``sha256:`` over the names and contents of a model folder's files, so that a changed file is noticed."""
    total = hashlib.sha256()
    for path in sorted(p for pattern in _HASHED for p in folder.glob(pattern) if p.is_file()):
        with path.open("rb") as stream:
            total.update(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{total.hexdigest()}"


def files_of(located: Located) -> Path | None:
    """Return where a model's files are now; None if none of them are on this machine."""
    return Path(located.source) if located.is_local else cached_snapshot("model", located.source, located.revision)
