"""The few file operations that results depend on, in one place so that tests can inject faults.

For durability, data is written and synced before the file that refers to it is replaced, and a folder is synced after
an entry in it has changed.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from llmjobs.errors import RunFolderError


class NotAFileError(OSError):
    """Something other than a regular file is in place of a file of the run: a pipe, a device, a folder."""

    def __init__(self, path: Path) -> None:
        """Set ``strerror`` like any :class:`OSError`, so that each reader's own error handling names the file."""
        super().__init__(f"not a regular file; remove {path.name} or put the file back")
        self.strerror = str(self.args[0])


def open_existing(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file and return its descriptor; refuse anything else at once, without waiting.

    Every file of a run folder is opened with this function; a plain ``open`` of a named pipe would hang forever.

    Raises:
        NotAFileError: it is not a regular file.
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
    """Whether anything exists at ``path``, even a broken link; what is not a regular file must be refused."""
    return os.path.lexists(path)


def open_new(path: Path) -> BinaryIO:
    """Open a new unbuffered file; anything at ``path``, such as a link or a pipe, is removed first."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileExistsError:
        path.unlink()  # a folder in its place is an error that names it
        descriptor = os.open(path, flags, 0o666)
    return os.fdopen(descriptor, "wb", buffering=0)


def write(stream: BinaryIO, data: bytes) -> None:
    """Write all of ``data`` to an unbuffered stream."""
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]


def fsync(stream: BinaryIO) -> None:
    """Sync a file's data to the disk."""
    os.fsync(stream.fileno())


def fsync_folder(folder: Path) -> None:
    """Sync a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Replace ``target`` atomically."""
    os.replace(source, target)  # noqa: PTH105 - one name for the injector to wrap


def truncate(stream: BinaryIO, size: int) -> None:
    """Cut a file to ``size`` bytes."""
    stream.truncate(size)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents."""
    folder.mkdir(parents=True, exist_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file (or a link, never its target) with ``data``; after a crash, the old or the new content is there.

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
    """Remove a temporary file if the body fails; after a kill, the next start removes it."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free some space"),
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS),
        "Name a folder that you can write to (--results, or -o for a report)",
    ),
}
"""What to do about an error of the operating system, by its number."""


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn an :class:`OSError` into one line with the remedy."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = REMEDIES.get(error.errno or 0, "Fix the cause")
        raise RunFolderError(
            f"{path}: {reason}. Earlier results are intact. {remedy} and run the same command again."
        ) from error
