"""The few file operations that results depend on, in one place so that faults can be injected under them.

Order of durability: data is written and synced before the file that refers to it is replaced, and a folder is synced
after an entry in it changed.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from llmjobs.errors import RunFolderError


class NotAFileError(OSError):
    """Something other than a regular file lies where a file of the run belongs: a pipe, a device, a folder."""

    def __init__(self, path: Path) -> None:
        """Say it as an :class:`OSError` does, so that every reader's own handling names the file."""
        super().__init__(f"not a regular file; remove {path.name} or put the file back")
        self.strerror = str(self.args[0])


def open_existing(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file and return its descriptor; anything else is refused at once, never waited for.

    Every file of a run folder is opened through here: a plain ``open`` of a named pipe would hang for ever.

    Raises:
        NotAFileError: it is no regular file.
        OSError: it cannot be opened.

    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotAFileError(path)
    return descriptor


def open_to_read(path: Path) -> BinaryIO:
    """Open a regular file for reading (see :func:`open_existing`)."""
    return os.fdopen(open_existing(path), "rb")


def read_whole(path: Path) -> bytes:
    """Read a regular file (see :func:`open_existing`)."""
    with open_to_read(path) as stream:
        return stream.read()


def is_there(path: Path) -> bool:
    """Whether anything lies at ``path``, a broken link too: what is no regular file has to be refused, not skipped."""
    return os.path.lexists(path)


def open_new(path: Path) -> BinaryIO:
    """Open a new unbuffered file; what lies there already, a link or a pipe too, is removed and not written through."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileExistsError:
        path.unlink()  # a folder in its place is an error, told by its name
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
    with clear_errors(path), taken_back(temporary):
        with open_new(temporary) as stream:
            write(stream, data)
            fsync(stream)
        rename(temporary, path)
        fsync_folder(path.parent)


@contextmanager
def taken_back(temporary: Path) -> Iterator[None]:
    """Remove a temporary file where the body fails; after a kill it is swept by the next start."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn an :class:`OSError` into one line that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFolderError(
            f"{path}: {reason}. Earlier results are intact. Fix the cause and run the same command again."
        ) from error
