"""Base and field types shared by every section of a manifest."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

MAX_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(1, 10))}


class Section(BaseModel):
    """A frozen mapping that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


def _file_name(value: str) -> str:
    if len(value) > MAX_NAME or not _NAME.fullmatch(value) or value.lower().split(".")[0] in _WINDOWS_DEVICES:
        raise ValueError(
            f"'{value[:60]}' cannot be a folder's name; use at most {MAX_NAME} of letters, digits, '.', '_', '+', '-'"
        )
    return value


def slug(text: str) -> str:
    """Turn any text into a name that :data:`FileName` accepts: ``meta-llama/Llama-3.2-1B`` → ``Llama-3.2-1B``."""
    last = text.rstrip("/").rsplit("/", 1)[-1]
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", last).strip("-._+")[:MAX_NAME]
    return f"m-{name}" if name.lower().split(".")[0] in _WINDOWS_DEVICES or not name else name


def _short_text(value: str) -> str:
    if "\0" in value or len(value) > 4096:
        raise ValueError("text with a NUL character or over 4,096 characters is not allowed here")
    return value


FileName = Annotated[str, Field(min_length=1), AfterValidator(_file_name)]
"""A name that becomes a folder: no separators, no ``..``, at most 100 characters."""
ShortText = Annotated[str, Field(min_length=1), AfterValidator(_short_text)]


def _beside_manifest(value: str, info: ValidationInfo) -> str:
    """Make a relative path that exists beside the manifest, not here, point there; ``base`` is in the context."""
    base = (info.context or {}).get("base")
    try:
        return str(base / value) if base and not Path(value).exists() and (base / value).exists() else value
    except OSError:
        return value


def _named_or_beside(value: str, info: ValidationInfo) -> str:
    return value if value == "own" or value.startswith("hub:") else _beside_manifest(value, info)


def _dotted_beside(value: str, info: ValidationInfo) -> str:
    return _beside_manifest(value, info) if value.startswith(("./", "../")) else value


DataPath = Annotated[ShortText, AfterValidator(_beside_manifest)]
"""A file or folder; a relative one is taken from the working folder first, then from the manifest's folder."""
OwnOrPath = Annotated[ShortText, AfterValidator(_named_or_beside)]
"""``own``, ``hub:OWNER/DATASET`` or a :data:`DataPath`."""
ModelId = Annotated[ShortText, AfterValidator(_dotted_beside)]
"""A name on the hub or a folder; one that starts with ``./`` or ``../`` as a :data:`DataPath`."""
