"""The few file operations that results depend on, in one place so that faults can be injected under them.

Order of durability: data is written and synced before the file that refers to it is replaced, and a folder is synced
after an entry in it changed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llmjobs.errors import RunFolderError


def open_new(path: Path) -> BinaryIO:
    """Open a new unbuffered file; what lies there already, a link or a pipe too, is removed and not written through."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileExistsError:
        path.unlink()
        descriptor = os.open(path, flags, 0o666)
    return os.fdopen(descriptor, "wb", buffering=0)


def write(stream: BinaryIO, data: bytes) -> None:
    """Write all of ``data`` to an unbuffered stream."""
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]


def fsync(stream: BinaryIO) -> None:
    """Bring a file's data to the disk."""
    os.fsync(stream.fileno())


def fsync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Replace ``target`` in one step."""
    os.replace(source, target)  # noqa: PTH105 - one name for the injector to wrap


def truncate(stream: BinaryIO, size: int) -> None:
    """Cut a file to ``size`` bytes."""
    stream.truncate(size)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents."""
    folder.mkdir(parents=True, exist_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file (a link too, never what it points to) with ``data``: after a crash the old or the new is there.

    Raises:
        RunFolderError: the disk is full, read-only, gone or failing.

    """
    temporary = path.with_name(path.name + ".tmp")
    with clear_errors(path):
        with open_new(temporary) as stream:
            write(stream, data)
            fsync(stream)
        rename(temporary, path)
        fsync_folder(path.parent)


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn an :class:`OSError` into one line that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFolderError(
            f"{path}: {reason}; what was saved before is whole: mend the cause and give the same command again"
        ) from error
