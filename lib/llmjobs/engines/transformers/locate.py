"""Where a model's files are: a demo model that comes along, a folder, or the hub."""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llmjobs.demo import DEMO_MODELS
from llmjobs.engines.transformers.checkpoint import check_folder, check_repository
from llmjobs.errors import ModelError
from llmjobs.hub.files import is_whole
from llmjobs.hub.repositories import cached_snapshot, is_offline, repo_folder, resolve_model
from llmjobs.manifest.models import ModelSpec
from llmjobs.manifest.suggest import not_one_of

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
    if own := local_folder(spec):
        try:
            return Located(str(own), folder_hash(own), is_local=True)
        except OSError as error:
            raise _unreadable(spec, own, error) from None
    commit = resolve_model(spec.id, spec.revision)
    if is_whole(spec.id, commit):
        check_folder(spec, repo_folder("model", spec.id) / "snapshots" / commit)
    elif not is_offline():
        check_repository(spec, commit)
    return Located(spec.id, commit, is_local=False)


def local_folder(spec: ModelSpec) -> Path | None:
    """Return the folder that a model's id names, checked but not read; None where the id is a name on the hub.

    Raises:
        ModelError: it is not a model that can be evaluated, or neither a folder nor a name on the hub.

    """
    folder = Path(spec.id).expanduser()
    try:
        if folder.is_dir():
            check_folder(spec, folder)
            return folder
        told = _not_a_model(spec.id, folder)
    except OSError as error:
        raise _unreadable(spec, folder, error) from None
    if told:
        raise ModelError(f"{spec.name}: {told}")
    return None


def _unreadable(spec: ModelSpec, folder: Path, error: OSError) -> ModelError:
    where, remedy = error.filename or folder, "check the path"
    if isinstance(error, PermissionError):
        remedy = "let this user read it: chmod a+r"
    return ModelError(f"{spec.name}: {str(where)[:200]}: {error.strerror}; {remedy}")


def is_on_hub(spec: ModelSpec) -> bool:
    """Whether a model's id is taken for a name on the hub."""
    return not (
        spec.endpoint or spec.id.startswith((DEMO_PREFIX, "/", "./", "../", "~")) or Path(spec.id).expanduser().exists()
    )


def _not_a_model(text: str, path: Path) -> str | None:
    """What an id is that is neither a folder nor a name on the hub, with the remedy; None where it may be a name."""
    if path.exists():
        return f"{text} is {_kind_of_file(path)}"
    if text.startswith(("/", "./", "../", "~")):
        return f"there is no folder {text}; check the path, or name a model on the hub (OWNER/NAME)"
    if re.match(r"[A-Za-z]:[\\/]", text) or "\\" in text:
        return f"there is no folder {text}; check the path, and write it with / between folders"
    if match := re.fullmatch(r"([\w.-]+/[\w.-]+)@([\w./-]+)", text):
        return f"{text} is not a name on the hub; write id: {match[1]} and revision: {match[2]}"
    if re.fullmatch(r"[\w./-]+:[\w.-]+", text):
        return (
            f"{text} is a name of Ollama or of a GGUF file; name the model on the hub (OWNER/NAME), or talk to the "
            "server that has it: endpoint: http://localhost:11434/v1 (chat, converse, mtbench)"
        )
    if text.count("/") > 1 and re.fullmatch(r"[\w.-]+/[\w.-]+(/[\w.-]+)+", text):
        return (
            f"there is no folder {text}, and a name on the hub has one slash (OWNER/NAME); check the path, or fetch "
            "the repository and name its subfolder"
        )
    if (suffix := path.suffix.lower()) in FILES:
        return f"there is no file {text}, and {FILES[suffix]}"
    return None


FILES = {
    ".gguf": "GGUF files (llama.cpp) are not read; name the model that it was made from (OWNER/NAME)",
    ".safetensors": "a model is a folder: name the folder that holds it with its config.json",
    ".bin": "a model is a folder: name the folder that holds it with its config.json",
    ".pt": "a model is a folder: name the folder that save_pretrained wrote",
    ".pth": "a model is a folder: name the folder that save_pretrained wrote",
    ".ckpt": "a model is a folder: name the folder that save_pretrained wrote",
    ".onnx": "ONNX is not read; name the model that it was made from (OWNER/NAME)",
    ".json": "a model is a folder: name the folder that holds it",
    ".zip": "archives are not unpacked: unpack it and name the folder",
    ".gz": "archives are not unpacked: unpack it and name the folder",
    ".tar": "archives are not unpacked: unpack it and name the folder",
}
"""Suffix of a file that people give as a model, and what to do instead."""


def _kind_of_file(path: Path) -> str:
    if not path.is_file():
        return "neither a file nor a folder; name the folder that save_pretrained wrote"
    return f"a file; {FILES.get(path.suffix.lower(), 'name the folder that save_pretrained wrote')}"


@lru_cache(maxsize=64)
def folder_hash(folder: Path) -> str:
    """``sha256:`` over the names and contents of a model folder's files, so that a changed file is noticed."""
    total = hashlib.sha256()
    for path in sorted(p for pattern in _HASHED for p in folder.glob(pattern) if p.is_file()):
        with path.open("rb") as stream:
            total.update(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{total.hexdigest()}"


def weight_file_bytes(located: Located) -> int | None:
    """Bytes of the safetensors that are on this machine."""
    folder = Path(located.source) if located.is_local else cached_snapshot("model", located.source, located.revision)
    files = sorted(folder.glob("*.safetensors")) if folder else []
    return sum(file.stat().st_size for file in files) or None
