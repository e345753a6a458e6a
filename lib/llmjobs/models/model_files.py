"""Looks at a model's files before anything parses them: sizes, what the config claims, what the weights' headers hold.

A config of a few lines can ask for a billion layers, and a tokenizer file can be larger than the memory. Both end in
one line here. The safetensors library itself checks headers when it loads; here only their shapes are read.
"""

import json
import math
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmjobs.errors import ModelError
from llmjobs.hub.files import MAX_CONFIG_BYTES, MAX_TEXT_BYTES

PARSED = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")
MAX_HEADER_BYTES = 100_000_000
"""As the safetensors library has it."""
MAX_LAYERS = 4096
MAX_SIZE = 1 << 26
MAX_POSITIONS = 1 << 40
ALLOWED = (
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
    for path in sorted({path for pattern in PARSED for path in folder.glob(pattern)}):
        found = path.stat()
        allowed = MAX_CONFIG_BYTES if path.name.endswith("config.json") else MAX_TEXT_BYTES
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{who}: {path} is not a regular file; take another model")
        if found.st_size > allowed:
            size = f"{found.st_size / 1024**2:,.0f} MiB"
            raise ModelError(f"{who}: {path} has {size}, more than the {allowed >> 20} MiB allowed; take another model")
    config = folder / "config.json"
    if config.is_file():
        check_claims(who, str(config), _read_config(who, config))


def checked_config(who: str, source: str, revision: str | None, *, trust_remote_code: bool) -> Any:
    """Load a model's config, from a folder or the hub, once its numbers were looked at.

    Raises:
        ModelError: it claims what no model has.

    """
    from transformers import AutoConfig, PretrainedConfig

    plain, _ = PretrainedConfig.get_config_dict(source, revision=revision)
    check_claims(who, "config.json", plain)
    return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)


def check_weights(who: str, folder: Path, parameters: int, layers: int) -> None:
    """Refuse a config that describes another model than the weight files hold.

    Without this, what the files lack would be made up at random, a billion layers of it where the config says so.
    ``parameters`` and ``layers`` are the config's. Says nothing where there are no safetensors.

    Raises:
        ModelError: the files hold less than the config describes, or a header that is none.

    """
    shapes = dict(_shapes(who, folder))
    if not shapes:
        return
    numbers = [int(found[1]) for name in shapes if (found := _LAYER_OF.search(name))]
    if numbers and layers > max(numbers) + 1:
        raise ModelError(
            f"{who}: config.json describes {layers:,} layers, the weight files hold {max(numbers) + 1:,}; not loaded"
        )
    held = sum(math.prod(shape) for shape in shapes.values())
    if parameters > held * 1.01:
        raise ModelError(
            f"{who}: config.json describes {parameters:,} parameters, the weight files hold {held:,}; not loaded"
        )


def _read_config(who: str, path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{who}: {path} is not JSON ({type(error).__name__}); fetch the model anew") from None
    if not isinstance(config, dict):
        raise ModelError(f"{who}: {path} holds no object; fetch the model anew")
    return config


def check_claims(who: str, where: str, config: Mapping[str, Any]) -> None:
    """Refuse numbers that no model has.

    Raises:
        ModelError: names the key, the number and what is allowed.

    """
    for key, value in _numbers(config):
        most = next((allowed for names, allowed in ALLOWED if names.search(key)), MAX_SIZE)
        if isinstance(value, int) and abs(value) > most:
            shown = f"{value:,}" if abs(value) < 10**18 else "a number of over 18 digits"
            raise ModelError(f"{who}: {where}: {key} is {shown}, which no model has (at most {most:,}); not loaded")


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
            what = str(error) or type(error).__name__
            raise ModelError(f"{who}: {path} is no safetensors file ({what[:100]}); fetch the model anew") from None


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
    return header
