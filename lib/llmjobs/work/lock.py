"""One process at a time in a run folder.

The lock is the kernel's (``flock``), so it goes with its process, however that ends, and no clock is asked. The note
in the file says who holds it; a clean end empties it. Some shared file systems have no such locks, or keep them to one
machine: there the note is all there is. A live process of this machine is refused by it, one of another machine is
warned of: whether it still runs cannot be seen from here, and a job that was cut off there must go on here. Should
both run, the journals' lengths stop one of them (``journal.Journal.check_alone``).
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

from llmjobs import disk
from llmjobs.errors import LockedError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who wrote the note in a lock file."""

    pid: int
    host: str

    def __str__(self) -> str:
        """As it stands in a line for people."""
        return f"process {self.pid} on {self.host}"

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is of another machine or container."""
        return self.host != socket.gethostname()

    @property
    def is_alive_here(self) -> bool:
        """Whether it is another process of this machine that still runs."""
        if self.is_elsewhere or self.pid == os.getpid():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # it is there, and somebody else's
            return True
        return True


def lock_file(folder: Path) -> Path:
    """The lock lies beside the run folder, so that the folder can be renamed while it is held."""
    return folder.with_name(f".{folder.name}.lock")


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder``.

    Raises:
        LockedError: another process holds it; the line says which.

    """
    path = lock_file(folder)
    with disk.clear_errors(path):
        disk.make_folder(path.parent)
        descriptor = disk.open_existing(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0))
    try:
        left = _read_note(descriptor)
        locks = _flock(descriptor, folder, left)
        if left and not locks and left.is_alive_here:
            raise LockedError(_refusal(folder, left))
        if left and left.is_elsewhere:
            log.warning(
                "%s: %s did not end this run cleanly; should it still be running, stop it: two cannot work in one run",
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
    with disk.clear_errors(folder):
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
    """Who left the note; None after a clean end, and where it cannot be read."""
    try:
        note = json.loads(os.pread(descriptor, 500, 0))
        return Holder(int(note["pid"]), str(note["host"])[:100])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_note(descriptor: int, note: str) -> None:
    """The note is for people: a full disk fails at the first file of the run, with its own line."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note.encode(), 0)
