"""Find a model for transformers: a bundled demo model, a folder, or the hub. Anything else is refused."""

import re
from dataclasses import replace
from pathlib import Path

from llmjobs.demo import DEMO_MODELS
from llmjobs.engines.adapters import locate_adapter
from llmjobs.engines.locate import DEMO_PREFIX, Located, folder_hash
from llmjobs.engines.transformers.model_files import check_folder, check_headers, check_repository
from llmjobs.errors import ModelError
from llmjobs.hub.files import is_whole
from llmjobs.hub.repositories import is_offline, repo_folder, resolve_model
from llmjobs.manifest.fields import not_one_of
from llmjobs.manifest.models import ModelSpec


def locate(spec: ModelSpec) -> Located:
    """Find a model, and its adapter, without loading it; a hub revision becomes a commit.

    Raises:
        ModelError: a demo name that does not exist, a folder without a config, files that cannot be read, or the hub
            refuses.

    """
    found = _locate_base(spec)
    return replace(found, adapter=locate_adapter(spec)) if spec.adapter else found


def _locate_base(spec: ModelSpec) -> Located:
    if spec.id.startswith(DEMO_PREFIX):
        name = spec.id.removeprefix(DEMO_PREFIX)
        if name not in DEMO_MODELS:
            raise ModelError(f"{spec.name}: id: {not_one_of(spec.id, [DEMO_PREFIX + n for n in DEMO_MODELS])}")
        folder = DEMO_MODELS[name]
        return Located(str(folder), folder_hash(folder), is_local=True)
    if own := local_path(spec):
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


def load_from(spec: ModelSpec, located: Located) -> tuple[str, str | None]:
    """The argument for ``from_pretrained``: a folder, or an id and its commit if the cache is not complete.

    Given an id, transformers asks the hub for the repository's list of files and for files that do not exist, however
    complete the cache is. Without a network, each of these requests runs into its timeout.
    """
    if located.is_local or located.revision is None:
        return located.source, None
    folder = repo_folder("model", located.source) / "snapshots" / located.revision
    has_code = not spec.trust_remote_code or any(folder.glob("*.py"))
    if has_code and is_whole(located.source, located.revision):
        return str(folder), None
    return located.source, located.revision


def local_path(spec: ModelSpec) -> Path | None:
    """Return the folder that a model's id names, checked but not read; None if the id is a name on the hub.

    Raises:
        ModelError: it is not a model that can be evaluated, or neither a folder nor a name on the hub.

    """
    folder = Path(spec.id).expanduser()
    try:
        if folder.is_dir():
            check_folder(spec, folder)
            check_headers(spec, folder)
            return folder
        problem = _not_a_model(spec.id, folder)
    except OSError as error:
        raise _unreadable(spec, folder, error) from None
    if problem:
        raise ModelError(f"{spec.name}: {problem}")
    return None


def _unreadable(spec: ModelSpec, folder: Path, error: OSError) -> ModelError:
    where, remedy = error.filename or folder, "check the path"
    if isinstance(error, PermissionError):
        remedy = "let this user read it: chmod a+r"
    return ModelError(f"{spec.name}: {str(where)[:200]}: {error.strerror}; {remedy}")


def _not_a_model(text: str, path: Path) -> str | None:
    """Describe an id that is neither a folder nor a name on the hub, with the remedy; None if it may be a name."""
    if path.exists():
        return f"{text} is {_kind_of_file(path)}"
    if text.startswith(("/", "./", "../", "~")):
        return f"there is no folder {text}; check the path, or name a model on the hub (OWNER/NAME)"
    if re.match(r"[A-Za-z]:[\\/]", text) or "\\" in text:
        return f"there is no folder {text}; check the path, and write it with / between folders"
    if match := re.fullmatch(r"([\w.-]+/[\w.-]+)@([\w./-]+)", text):
        return f"{text} is not a name on the hub; set id: {match[1]} and revision: {match[2]}"
    if re.fullmatch(r"[\w./-]+:[\w.-]+", text):
        return (
            f"{text} is an Ollama name; write ollama:{text} for the file in Ollama's store on this machine, name the "
            "model on the hub (OWNER/NAME), or use the Ollama server: model: "
            f"{text} and endpoint: http://localhost:11434/v1"
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
    ".gguf": "transformers does not run GGUF files; remove engine: transformers, so that llama.cpp runs it",
    ".safetensors": "a model is a folder: name the folder that contains it and its config.json",
    ".bin": "a model is a folder: name the folder that contains it and its config.json",
    ".pt": "a model is a folder: name the folder that save_pretrained wrote",
    ".pth": "a model is a folder: name the folder that save_pretrained wrote",
    ".ckpt": "a model is a folder: name the folder that save_pretrained wrote",
    ".onnx": "ONNX is not supported; name the model that it was made from (OWNER/NAME)",
    ".json": "a model is a folder: name the folder that contains it",
    ".zip": "archives are not unpacked: unpack it and name the folder",
    ".gz": "archives are not unpacked: unpack it and name the folder",
    ".tar": "archives are not unpacked: unpack it and name the folder",
}
"""Suffix of a file that people pass as a model, and what to do instead."""


def _kind_of_file(path: Path) -> str:
    if not path.is_file():
        return "neither a file nor a folder; name the folder that save_pretrained wrote"
    return f"a file; {FILES.get(path.suffix.lower(), 'name the folder that save_pretrained wrote')}"
