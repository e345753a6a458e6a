"""Looks at a model's files before anything parses them: sizes, what the config claims, what the weights' headers hold.

A config of a few lines can ask for a billion layers, and a tokenizer file can be larger than the memory. Both end in
one line here. The safetensors library itself checks headers when it loads; here only their shapes are read.
"""

import json
import math
import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmjobs.errors import ModelError
from llmjobs.hub.files import MAX_CONFIG_BYTES, MAX_TEXT_BYTES

PARSED = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")
WEIGHTS = ("*.safetensors", "*.bin")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAX_HEADER_BYTES = 100_000_000
"""As the safetensors library has it."""
MAX_LAYERS = 4096
MAX_SIZE = 1 << 26
MAX_POSITIONS = 1 << 40
ALLOWED = (
    (re.compile(r"experts$|^num_experts|^num_labels$"), 1 << 14),
    (re.compile(r"(num|n)_(\w+_)?layers?$|^depth$"), MAX_LAYERS),
    (re.compile(r"position|seq|ctx|length|window|theta|token_id|seed|^max_|chunk", re.IGNORECASE), MAX_POSITIONS),
)
"""The most that a number of a config may be, by its key; :data:`MAX_SIZE` for all others."""
_LAYER_OF = re.compile(r"\.(\d+)\.")
Shapes = dict[str, list[int]]


def check_model_files(who: str, folder: Path) -> None:
    """Refuse files that are too large to be what their names say, and configs that no model has.

    Raises:
        ModelError: names the file, what it holds and what is allowed.

    """
    if not folder.is_dir():
        return
    for path in sorted({path for pattern in (*PARSED, *WEIGHTS) for path in folder.glob(pattern)}):
        found = _stat(who, path)
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{who}: {path} is not a regular file; remove it, or fetch the model again")
        if found.st_size < 1024 and path.suffix != ".json":
            _check_pointer(who, path)
        if path.match("*.safetensors") or path.match("*.bin"):
            continue
        allowed = MAX_CONFIG_BYTES if path.name.endswith("config.json") else MAX_TEXT_BYTES
        if found.st_size > allowed:
            size = f"{found.st_size / 1024**2:,.0f} MiB"
            raise ModelError(f"{who}: {path} has {size}, more than the {allowed >> 20} MiB allowed; take another model")
    config = folder / "config.json"
    if config.is_file():
        check_claims(who, str(config), read_object(who, config))


def _stat(who: str, path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        raise ModelError(f"{who}: {path} is a link to a file that is gone; fetch the model again") from None


def _check_pointer(who: str, path: Path) -> None:
    with path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ModelError(f"{who}: {path} is a git-lfs pointer, not the file itself; run: git lfs pull")


def checked_config(who: str, source: str, revision: str | None, *, trust_remote_code: bool) -> Any:
    """Load a model's config, from a folder or the hub, once its numbers were looked at.

    Raises:
        ModelError: it claims what no model has.

    """
    from transformers import AutoConfig, PretrainedConfig

    plain, _ = PretrainedConfig.get_config_dict(source, revision=revision)
    check_claims(who, "config.json", plain)
    return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)


def check_layers(who: str, folder: Path, layers: int) -> None:
    """Refuse a config with more ``layers`` than the weight files hold, before the model is built from it.

    Raises:
        ModelError: the files hold fewer layers than the config describes, or a header that is none.

    """
    numbers = [int(found[1]) for name, _ in _shapes(who, folder) if (found := _LAYER_OF.search(name))]
    if numbers and layers > max(numbers) + 1:
        raise ModelError(
            f"{who}: config.json describes {layers:,} layers, the weight files hold {max(numbers) + 1:,}; "
            "fetch the model again, or correct config.json"
        )


def check_weights(who: str, folder: Path, parameters: int) -> None:
    """Refuse a config that describes more ``parameters`` than the weight files hold.

    Without this, memory would be taken for what the files lack. Says nothing where there are no safetensors.

    Raises:
        ModelError: the files hold less than the config describes, or a header that is none.

    """
    held = sum(math.prod(shape) for _, shape in _shapes(who, folder))
    if held and parameters > held * 1.01:
        raise ModelError(
            f"{who}: config.json describes {parameters:,} parameters, the weight files hold {held:,}; "
            "fetch the model again, or correct config.json"
        )


def read_object(who: str, path: Path) -> dict[str, Any]:
    """Read a small JSON file that holds an object.

    Raises:
        ModelError: it cannot be read, is no JSON, or holds something else.

    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{who}: {path} cannot be read: {error.strerror}; {_remedy(error)}") from None
    if raw.startswith(LFS_POINTER):
        raise ModelError(f"{who}: {path} is a git-lfs pointer, not the file itself; run: git lfs pull")
    try:
        found = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        what = "is a web page, not JSON" if raw.lstrip()[:1] == b"<" else "is not JSON"
        raise ModelError(f"{who}: {path} {what}; fetch the model again") from None
    if not isinstance(found, dict):
        raise ModelError(f"{who}: {path} holds no JSON object; fetch the model again")
    return found


def _remedy(error: OSError) -> str:
    return "let this user read it: chmod a+r" if isinstance(error, PermissionError) else "fetch the model again"


def check_claims(who: str, where: str, config: Mapping[str, Any]) -> None:
    """Refuse numbers that no model has.

    Raises:
        ModelError: names the key, the number and what is allowed.

    """
    for key, value in _numbers(config):
        most = next((allowed for names, allowed in ALLOWED if names.search(key)), MAX_SIZE)
        if isinstance(value, int) and abs(value) > most:
            shown = f"{value:,}" if abs(value) < 10**18 else "a number of over 18 digits"
            raise ModelError(f"{who}: {where}: {key} is {shown}, which no model has (at most {most:,}); correct it")


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int | float]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield key, value


def _shapes(who: str, folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield name and shape of every tensor, from the headers alone."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            for name, entry in _header(path).items():
                if name != "__metadata__":
                    yield name, [int(size) for size in entry["shape"]]
        except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError, struct.error) as error:
            what = f" ({error})" if type(error) is ValueError else ""
            raise ModelError(f"{who}: {path} is not a safetensors file{what[:200]}; fetch the model again") from None


def _header(path: Path) -> dict[str, Any]:
    """Read the header: eight bytes of length, then JSON (the format's own description, huggingface/safetensors)."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")
    ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    if max(ends, default=0) > size - 8 - length:
        raise ValueError(f"cut short: {size:,} bytes of {8 + length + max(ends):,}")
    return header
