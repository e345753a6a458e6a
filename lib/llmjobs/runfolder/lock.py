"""One process at a time in a run folder.

The lock is the kernel's (``flock``), so it goes with its process, however that ends; what stands in the file is for
people.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from llmjobs.errors import LockedError
from llmjobs.runfolder import disk


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
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"{folder}: {_holder(path)} is working in this run; wait for it, stop it, or give the run "
                "another name: --set name=…"
            ) from None
        except OSError as error:
            # a file system without locks: go on, the cursor's checks still hold
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        holder = {"pid": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)
        yield
    finally:
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_bytes()[:500])
        return f"process {int(holder['pid'])} on {str(holder['host'])[:100]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
