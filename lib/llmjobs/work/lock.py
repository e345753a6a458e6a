"""One process at a time in a run folder.

The lock is the kernel's (``flock``), so it disappears with its process, however that ends, and it does not depend on a
clock. The note in the file says who holds the lock; a clean end empties it. Some shared file systems have no such
locks, or keep them local to one machine. There only the note is left. If it names a live process of this machine, we
refuse to start. If it names another machine, we only warn, because we cannot see whether that process still runs, and a
job that was interrupted there must be resumable here. If both do run, the lengths of the journals stop one of them
(``journal.Journal.check_alone``).
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmjobs import file_operations
from llmjobs.errors import LockedError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who wrote the note in a lock file."""

    pid: int
    host: str

    def __str__(self) -> str:
        """As shown in messages."""
        return f"process {self.pid} on {self.host}"

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is on another machine or in another container."""
        return self.host != socket.gethostname()

    @property
    def is_alive_here(self) -> bool:
        """Whether it is another process on this machine that is still running."""
        if self.is_elsewhere or self.pid == os.getpid():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # it exists and belongs to another user
            return True
        return True


def lock_file(folder: Path) -> Path:
    """The lock file is beside the run folder, so that the folder can be renamed while the lock is held."""
    return folder.with_name(f".{folder.name}.lock")


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder``.

    Raises:
        LockedError: another process holds it; the line names it.

    """
    path = lock_file(folder)
    with file_operations.clear_errors(path):
        file_operations.make_folder(path.parent)
        descriptor = file_operations.open_existing(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0))
    try:
        left = _read_note(descriptor)
        locks = _flock(descriptor, folder, left)
        if left and not locks and left.is_alive_here:
            raise LockedError(_refusal(folder, left))
        if left and left.is_elsewhere:
            log.warning(
                "%s: %s did not end this run cleanly; if it is still running, stop it, because two processes cannot "
                "work in one run",
                folder,
                left,
            )
        _write_note(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        try:
            yield
        finally:
            _write_note(descriptor, "")
    finally:
        os.close(descriptor)


def _flock(descriptor: int, folder: Path, left: Holder | None) -> bool:
    """Take the kernel's lock; False on a file system without locks.

    Raises:
        LockedError: another process has it.

    """
    with file_operations.clear_errors(folder):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(_refusal(folder, left)) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            return False
    return True


def _refusal(folder: Path, holder: Holder | None) -> str:
    return (
        f"{folder}: {holder or 'another process'} is working in this run; wait for it, stop it, or give the run "
        "another name: --set name=…"
    )


def _read_note(descriptor: int) -> Holder | None:
    """Who left the note; None after a clean end, or if it cannot be read."""
    try:
        note = json.loads(os.pread(descriptor, 500, 0))
        return Holder(int(note["pid"]), str(note["host"])[:100])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_note(descriptor: int, note: str) -> None:
    """Write the note; errors are ignored, because a full disk is reported at the first file of the run."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note.encode(), 0)
