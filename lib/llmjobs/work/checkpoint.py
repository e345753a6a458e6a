"""The checkpoint of a unit: a small pickle with a checksum, and the previous one beside it.

The pickle contains builtins only. Before it is loaded, its opcodes are checked against a short list without any opcode
that imports, calls or builds objects, so another pickle cannot run code or allocate memory. Afterwards its values are
counted, including repetitions, because a list could contain itself or double at each level.
"""

import hashlib
import pickle
import pickletools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmjobs import file_operations
from llmjobs.errors import RunFolderError, plain_reason

VERSION = 1
_MAGIC = b"llmjobs checkpoint %d\n" % VERSION
_ANY_MAGIC = re.compile(rb"llmjobs checkpoint (\d{1,9})\n")
_DIGEST_BYTES = 32
MAX_BYTES = 1 << 26
MAX_VALUES = 1 << 21
MAX_DEPTH = 100
_PLAIN_OPCODES = """
    PROTO FRAME STOP MARK MEMOIZE BINGET LONG_BINGET NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT
    SHORT_BINUNICODE BINUNICODE SHORT_BINBYTES BINBYTES EMPTY_DICT EMPTY_LIST EMPTY_TUPLE SETITEM SETITEMS
    APPEND APPENDS TUPLE TUPLE1 TUPLE2 TUPLE3
"""
_OPCODES = frozenset(_PLAIN_OPCODES.split())


class DamagedCheckpointError(Exception):
    """The file is not an intact checkpoint of this version; the text gives the reason."""


@dataclass(frozen=True)
class Loaded:
    """A checkpoint's state, and a remark if the newest checkpoint could not be used."""

    state: dict[str, Any]
    remark: str | None


def previous_of(path: Path) -> Path:
    """Path of the previous checkpoint."""
    return path.with_name(path.name + ".previous")


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a new checkpoint; the old one is kept as ``checkpoint.pkl.previous``.

    Raises:
        RunFolderError: the disk is full, read-only, gone or failing.

    """
    payload = pickle.dumps(dict(state), protocol=5)
    temporary = path.with_name(path.name + ".tmp")
    with file_operations.clear_errors(path), file_operations.taken_back(temporary):
        with file_operations.open_new(temporary) as stream:
            file_operations.write(stream, _MAGIC + hashlib.sha256(payload).digest() + payload)
            file_operations.fsync(stream)
        if path.exists():
            file_operations.rename(path, previous_of(path))
        file_operations.rename(temporary, path)
        file_operations.fsync_folder(path.parent)


def load(path: Path) -> Loaded | None:
    """Read the newest usable checkpoint; None if there is none.

    Raises:
        RunFolderError: there are files but none is usable (the text gives the reason); the records may still help.

    """
    reasons = []
    for candidate in (path, previous_of(path)):
        if not file_operations.is_there(candidate):
            continue
        try:
            state = read(candidate)
        except DamagedCheckpointError as error:
            reasons.append(f"{candidate.name} {error}")
            continue
        remark = (
            f"{path}: {'; '.join(reasons) or 'missing'}; continuing from {candidate.name}"
            if candidate != path
            else None
        )
        return Loaded(state, remark)
    if reasons:
        raise RunFolderError(f"{path}: {'; '.join(reasons)}")
    return None


def read(path: Path) -> dict[str, Any]:
    """Read one checkpoint.

    Raises:
        DamagedCheckpointError: wrong version, wrong checksum, anything but builtins in it, or unreadable.

    """
    try:
        with file_operations.open_to_read(path) as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DamagedCheckpointError("is larger than any checkpoint")
    except OSError as error:
        raise DamagedCheckpointError(f"cannot be read ({error.strerror})") from None
    if not data.startswith(_MAGIC):
        raise DamagedCheckpointError(_foreign(data))
    digest, payload = data[len(_MAGIC) :][:_DIGEST_BYTES], data[len(_MAGIC) + _DIGEST_BYTES :]
    if hashlib.sha256(payload).digest() != digest:
        raise DamagedCheckpointError("is damaged (its checksum differs)")
    return _loads(payload)


def _foreign(data: bytes) -> str:
    if other := _ANY_MAGIC.match(data):
        return f"has version {int(other[1])}, but this llmjobs reads version {VERSION}"
    return "is empty or cut off" if _MAGIC.startswith(data) else "is not a checkpoint"


def _loads(payload: bytes) -> dict[str, Any]:
    try:
        for opcode, _, _ in pickletools.genops(payload):
            if opcode.name not in _OPCODES:
                raise DamagedCheckpointError(
                    f"contains something other than plain values ({opcode.name}) and was not opened"
                )
        state = pickle.loads(payload)  # noqa: S301 - only opcodes that build plain values, checked above
        _check_size(state)
    except DamagedCheckpointError:
        raise
    except Exception as error:
        raise DamagedCheckpointError(f"is not a valid pickle ({plain_reason(error, 120)})") from None
    if not isinstance(state, dict):
        raise DamagedCheckpointError("does not contain a mapping")
    return state


def _check_size(state: Any) -> None:
    """Count the values, level by level, including repetitions."""
    level, count = [state], 1
    for _ in range(MAX_DEPTH):
        following: list[Any] = []
        for value in level:
            inner = [*value, *value.values()] if isinstance(value, dict) else value
            if isinstance(value, dict | list | tuple):
                count += len(inner)
                if count > MAX_VALUES:
                    raise DamagedCheckpointError("has more values than any checkpoint")
                following += inner
        if not following:
            return
        level = following
    raise DamagedCheckpointError("contains itself, or is deeper than any checkpoint")
