"""Leases: workers on other machines each write to a separate run folder below ``.leases`` of the run.

Only the process that holds the run's lock copies from a lease into the run, and a lease is never given to a second
worker. A worker that was thought dead and comes back therefore writes to a folder that nobody reads any more. The name
of the folder is the fence, so there is no gap between a check and a write.
"""

import errno
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmjobs import file_operations
from llmjobs.errors import RunFolderError
from llmjobs.work import checkpoint
from llmjobs.work.folder import CHECKPOINT, ERROR_FILE, RECORDS, TIMINGS, UNIT_FILE, RunFolder

log = logging.getLogger(__name__)
LEASES = ".leases"
SEEN_WITHIN_S = 15.0
"""A shared file system may show another machine's files with this delay."""
_OF_A_UNIT = {CHECKPOINT, RECORDS, TIMINGS, UNIT_FILE, ERROR_FILE}
_LENGTHS = ((RECORDS, "records_bytes"), (TIMINGS, "timings_bytes"))


def make_lease(run: RunFolder, name: str) -> RunFolder:
    """Create the lease ``name`` of a run and sync it before a worker gets it."""
    path = run.path / LEASES / name
    with file_operations.clear_errors(path):
        file_operations.make_folder(path)
        file_operations.fsync_folder(path.parent)
    return RunFolder(path)


def seed(run: RunFolder, lease: RunFolder, path: str, needs: Iterable[str], steps_done: int) -> None:
    """Copy into a lease what a worker needs: the unit so far, the files beside it, and the units that it reads.

    Raises:
        RunFolderError: this machine does not see the files of the run.

    """
    for one in (path, *needs):
        shutil.rmtree(lease.path / one, ignore_errors=True)
        _copy_files(run.path / one, lease.path / one)
    _copy_files((run.path / path).parent, (lease.path / path).parent)
    deadline = time.monotonic() + SEEN_WITHIN_S
    while steps_done and _steps(lease.path / path) < steps_done:
        if time.monotonic() > deadline:
            raise RunFolderError(
                f"{run.path / path}: {steps_done} steps are done, but this machine does not see them; "
                "the results must be on a file system that all nodes share"
            )
        time.sleep(0.5)
        shutil.rmtree(lease.path / path, ignore_errors=True)
        _copy_files(run.path / path, lease.path / path)


def take_over(run: RunFolder, lease: RunFolder, path: str) -> bool:
    """Copy a unit's progress into the run; False if the run is as far already.

    A finished unit that the run does not have yet is moved as a folder, in one step. Of any other unit the checkpoint
    is written last, so that after a kill in between the run still has its own, older checkpoint. Its lengths are still
    valid, because the new data continues the old.
    """
    source, target = lease.path / path, run.unit(path)
    state = _state(source)
    if state is not None and state.get("done") and _move_whole(source, target.path, state):
        return True
    own = _state(target.path)
    if state is None or (own is not None and _far(own) >= _far(state)):
        return False
    if not all(_is_there(source / name, target.path / name, int(state[key])) for name, key in _LENGTHS):
        log.warning("%s: its files are shorter than its checkpoint says; this copy is ignored", source)
        return False
    for name, key in _LENGTHS:
        _bring(source / name, target.path / name, int(state[key]), move=bool(state.get("done")))
    for file in _files(source):
        if file.name not in (RECORDS, TIMINGS, CHECKPOINT, ERROR_FILE, CHECKPOINT + ".previous"):
            file_operations.write_whole(target.path / file.name, file_operations.read_whole(file))
    with file_operations.clear_errors(target.path):
        file_operations.fsync_folder(target.path)
    checkpoint.save(target.checkpoint, state)
    return True


def share(run: RunFolder, lease: RunFolder) -> None:
    """Copy files that a worker wrote beside its units and the run does not have: model properties, questions."""
    for folder, below, names in os.walk(lease.path):  # ignores a unit that is moved away in the meantime
        if _OF_A_UNIT.intersection(names):
            below.clear()
            continue
        for file in _files(Path(folder)):
            target = run.path / file.relative_to(lease.path)
            if not target.exists():
                with file_operations.clear_errors(target):
                    file_operations.make_folder(target.parent)
                file_operations.write_whole(target, file_operations.read_whole(file))


def drop(lease: RunFolder) -> None:
    """Remove a lease; a worker that still writes to it ends with its own error."""
    shutil.rmtree(lease.path, ignore_errors=True)


def collect(run: RunFolder) -> None:
    """Take over everything that workers of an earlier process left, and remove the leases."""
    leases = run.path / LEASES
    if not leases.is_dir() or leases.is_symlink():
        return
    for folder in sorted(leases.iterdir()):
        lease = RunFolder(folder)
        for file in sorted(folder.rglob(CHECKPOINT)):
            take_over(run, lease, str(file.parent.relative_to(folder)))
        share(run, lease)
    shutil.rmtree(leases, ignore_errors=True)


def _state(unit: Path) -> Mapping[str, Any] | None:
    try:
        loaded = checkpoint.load(unit / CHECKPOINT)
    except RunFolderError as error:
        log.warning("%s", error)
        return None
    return loaded.state if loaded else None


def _steps(unit: Path) -> int:
    state = _state(unit)
    return int(state.get("steps_done", 0)) if state else 0


def _far(state: Mapping[str, Any]) -> tuple[bool, int, int]:
    return bool(state.get("done")), int(state.get("steps_done", 0)), int(state.get("attempts", 0))


def _move_whole(source: Path, target: Path, state: Mapping[str, Any]) -> bool:
    """Move a finished unit's folder over an empty one; False if that is not empty, or bytes are not saved."""
    journals = {name: int(state[key]) for name, key in _LENGTHS}
    if not all((file := source / name).is_file() and file.stat().st_size == size for name, size in journals.items()):
        return False
    entries = list(source.iterdir())
    if any(entry.is_dir() and not entry.is_symlink() for entry in entries):
        return False
    wanted = {file.name for file in _files(source)} - {ERROR_FILE, CHECKPOINT + ".previous"}
    with file_operations.clear_errors(target):
        for entry in entries:
            if entry.name not in wanted:
                entry.unlink()
        try:
            file_operations.rename(source, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        file_operations.fsync_folder(target.parent)
    return True


def _is_there(source: Path, target: Path, size: int) -> bool:
    """Whether a journal has its length; one that was moved before a kill is in the run already."""
    return any(path.is_file() and path.stat().st_size >= size for path in (source, target))


def _bring(source: Path, target: Path, size: int, *, move: bool) -> None:
    """Copy the first ``size`` bytes of a journal into the run; a finished one, no longer written to, is renamed."""
    if not source.is_file() or source.stat().st_size < size:
        return
    if move and source.stat().st_size == size:
        with file_operations.clear_errors(target):
            file_operations.rename(source, target)
        return
    with file_operations.clear_errors(source), file_operations.open_to_read(source) as stream:
        data = stream.read(size)
    file_operations.write_whole(target, data)


def _files(folder: Path) -> Iterator[Path]:
    """Complete regular files directly in a folder."""
    if folder.is_dir():
        found = (p for p in sorted(folder.iterdir()) if p.is_file() and not p.is_symlink())
        yield from (p for p in found if not p.name.startswith(".") and p.suffix != ".tmp")


def _copy_files(source: Path, target: Path) -> None:
    for file in _files(source):
        if file.name != ERROR_FILE:
            with file_operations.clear_errors(target):
                file_operations.make_folder(target)
                shutil.copyfile(file, target / file.name)
