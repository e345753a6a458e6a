"""Check that a unit's records and timings still match its checkpoint, before their numbers are used.

The checkpoint of a unit has the length and the SHA-256 of both files at the time of the save. A finished unit has
exactly these bytes; one that is being written, or was interrupted, may have more after them. Runs of older versions
have only lengths. These are compared, and each line is read, but a line that was edited to the same length is not
detected; such units are reported as unverified.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmjobs import file_operations
from llmjobs.errors import DataError, RunFolderError
from llmjobs.work import checkpoint
from llmjobs.work.folder import CHECKPOINT, RECORDS, TIMINGS
from llmjobs.work.journal import changed, read_lines

_FILES = ((RECORDS, "records"), (TIMINGS, "timings"))
_PART_BYTES = 1 << 20


@dataclass(frozen=True)
class Checked:
    """The result of checking a unit's files."""

    done: bool
    """Whether the unit is finished."""
    verified: bool
    """Whether digests were compared; if not, only lengths and the format."""


def check_unit(unit: Path) -> Checked | None:
    """Compare a unit's files with its checkpoint; None if it has no readable one.

    Raises:
        RunFolderError: a file was changed; the line names it and says how to recompute the unit.

    """
    if not file_operations.is_there(unit / CHECKPOINT) and not file_operations.is_there(
        checkpoint.previous_of(unit / CHECKPOINT)
    ):
        return None
    try:
        loaded = checkpoint.load(unit / CHECKPOINT)
    except RunFolderError:
        return None  # the runner continues from the records, and says so
    return check_state(unit, loaded.state) if loaded else None


def check_state(unit: Path, state: Mapping[str, Any]) -> Checked:
    """Compare a unit's files with the content of its checkpoint (see :func:`check_unit`)."""
    done, verified = bool(state.get("done")), True
    for name, kind in _FILES:
        size, digest = state.get(f"{kind}_bytes"), state.get(f"{kind}_sha256")
        if not isinstance(size, int) or size < 0:
            return Checked(done, verified=False)
        _check_file(unit / name, size, digest if isinstance(digest, str) else None, whole=done)
        verified &= isinstance(digest, str)
    return Checked(done, verified)


@dataclass(frozen=True)
class RunState:
    """The result of checking a run's units, by their paths below it."""

    unverified: list[str]
    """Units without a digest: they are from an older llmjobs, or the folder was copied in part."""
    unfinished: list[str]


def check_run(run: Path) -> RunState:
    """Check every unit of a run folder.

    Raises:
        RunFolderError: a file of a unit is not what was saved.

    """
    found = {unit.relative_to(run).as_posix(): check_unit(unit) for unit in units_of(run)}
    begun = {path for path, one in found.items() if one is None and _is_empty(run / path / RECORDS)}
    return RunState(
        unverified=[
            path
            for path, one in found.items()
            if path not in begun and (one is None or (one.done and not one.verified))
        ],
        unfinished=[path for path, one in found.items() if path in begun or (one is not None and not one.done)],
    )


def _is_empty(records: Path) -> bool:
    """Whether a unit was begun, but has not saved a step: there is nothing yet that a checksum could cover."""
    return records.is_file() and records.stat().st_size == 0


def units_of(run: Path) -> list[Path]:
    """Folders of units below a run, in order, without what workers hold in leases and without chats."""
    found = {file.parent for name in (RECORDS, CHECKPOINT) for file in run.rglob(name)}
    return sorted(unit for unit in found if not _is_elsewhere(unit.relative_to(run).parts))


def _is_elsewhere(parts: tuple[str, ...]) -> bool:
    return parts[:1] == ("chat",) or any(part.startswith(".") for part in parts)


def _check_file(path: Path, size: int, digest: str | None, *, whole: bool) -> None:
    try:
        stream = file_operations.open_to_read(path)
    except FileNotFoundError:
        if size:
            raise changed(path, f"is missing, but {size} bytes were saved") from None
        return
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror}") from None
    found, left = hashlib.sha256(), size
    with stream:
        while left and (part := stream.read(min(left, _PART_BYTES))):
            found.update(part)
            left -= len(part)
        more = bool(stream.read(1))
    if left:
        raise changed(path, f"has {size - left} bytes, but {size} were saved")
    if more and whole:
        raise changed(path, f"has {path.stat().st_size} bytes, but {size} were saved")
    if digest is None:
        if whole:
            _check_lines(path)
    elif found.hexdigest() != digest:
        raise changed(path, "does not match its checksum")


def _check_lines(path: Path) -> None:
    number = 0
    try:
        for number, _, _ in read_lines(path):  # noqa: B007 - the last whole line
            pass
    except DataError:
        raise changed(path, f"line {number + 1} is not a complete JSON object") from None
