"""Append-only JSONL files: records, timings, and finished paid calls.

A line is written whole, then synced; the checkpoint then holds the file's length and digest. On resume the file is cut
at that length and compared with the digest, so a torn last line never survives and a changed one is noticed
(:mod:`llmjobs.work.integrity` does so for readers). Before each write the file must still have the length that
this process left it at: so of two processes that a file system without locks lets in, one stops before it can do harm.

A finished call is on disk before its answer is used, so no call is paid twice.
"""

import contextlib
import hashlib
import json
import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from llmjobs import file_operations
from llmjobs.errors import DataError, RunFolderError

Record = dict[str, Any]
_PART_BYTES = 1 << 20


def encode(record: Mapping[str, Any]) -> bytes:
    """One JSON line; the same record gives the same bytes everywhere."""
    return (
        json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")
        + b"\n"
    )


class Journal:
    """One JSONL file open for appending, cut to ``size`` bytes first."""

    def __init__(self, path: Path, size: int, digest: str | None = None) -> None:
        """Open ``path``, creating it if it is missing; ``digest`` is the SHA-256 that its first ``size`` bytes have.

        Raises:
            RunFolderError: the file is shorter than ``size`` or has another digest, because something outside llmjobs
                changed it; or the disk fails.

        """
        self.path, self.size = path, size
        self._sha256 = hashlib.sha256()
        with file_operations.clear_errors(path):
            file_operations.make_folder(path.parent)
            is_new = not path.exists()
            _part_from_copies(path)
            descriptor = file_operations.open_existing(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0))
            self._stream = os.fdopen(descriptor, "rb+", buffering=0)
            try:
                self._check(digest)
                self._cut()
                if is_new:
                    file_operations.fsync_folder(path.parent)
            except BaseException:
                self._stream.close()
                raise

    @property
    def digest(self) -> str:
        """SHA-256 of the first :attr:`size` bytes."""
        return self._sha256.hexdigest()

    def _check(self, digest: str | None) -> None:
        """Read the saved part once, so that the digest can be continued."""
        length = self._stream.seek(0, os.SEEK_END)
        if length < self.size:
            raise changed(self.path, f"has {length} bytes, but {self.size} were saved")
        self._stream.seek(0)
        left = self.size
        while left and (part := self._stream.read(min(left, _PART_BYTES))):
            self._sha256.update(part)
            left -= len(part)
        if digest is not None and self.digest != digest:
            raise changed(self.path, "does not match its checksum")

    def _cut(self) -> None:
        length = self._stream.seek(0, os.SEEK_END)
        if length > self.size:
            file_operations.truncate(self._stream, self.size)
            file_operations.fsync(self._stream)
        self._stream.seek(self.size)

    def check_alone(self) -> None:
        """Check that nobody else wrote to the file.

        Raises:
            RunFolderError: its length differs from what this process left, or it is gone.

        """
        with file_operations.clear_errors(self.path):
            length = self.path.stat().st_size
        if length != self.size:
            raise RunFolderError(
                f"{self.path}: has {length} bytes, but this process wrote {self.size}. Another process is working "
                "in this run, or has changed it; stop one of them and run the same command again"
            )

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the records and sync them to disk."""
        data = b"".join(map(encode, records))
        if data:
            self.check_alone()
            with file_operations.clear_errors(self.path):
                try:
                    file_operations.write(self._stream, data)
                    file_operations.fsync(self._stream)
                except OSError:
                    self._take_back()
                    raise
            self.size += len(data)
            self._sha256.update(data)

    def _take_back(self) -> None:
        """Remove a half-written line, so that a process that continues can write again once there is space."""
        with contextlib.suppress(OSError):
            file_operations.truncate(self._stream, self.size)
            self._stream.seek(self.size)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> Self:
        """Return the open journal."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close on the way out."""
        self.close()


def changed(path: Path, how: str) -> RunFolderError:
    """The error for a unit's file that was changed from outside: what is wrong, and how to recompute the unit."""
    again = shlex.quote(str(path.with_name("checkpoint.pkl"))) + "*"
    return RunFolderError(
        f"{path}: {how}; it was changed from outside. Restore the file, or run 'rm {again}' and then the same command "
        "again to recompute this unit. Other results are intact."
    )


def _part_from_copies(path: Path) -> None:
    """Copy a file that has a second name (a backup by hard links, or a trap) before we append to it."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            file_operations.write_whole(path, file_operations.read_whole(path))


def read_lines(path: Path, *, allow_torn: bool = False) -> Iterator[tuple[int, int, Record]]:
    """Yield ``(line number, end offset in bytes, record)``.

    With ``allow_torn``, reading ends at a last line that is cut off (no newline, or damaged with nothing after it).

    Raises:
        DataError: a damaged line; the message has the file and the line.

    """
    end = 0
    try:
        with file_operations.open_to_read(path) as stream:
            for number, line in enumerate(stream, start=1):
                end += len(line)
                record = _parse(line)
                if record is None:
                    if allow_torn and not stream.read(1):
                        return
                    raise DataError(
                        f"{path}:{number}: not a complete JSON object; restore the file or run with --fresh"
                    )
                yield number, end, record
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def read_records(path: Path, *, allow_torn: bool = False) -> list[Record]:
    """All records of a JSONL file (see :func:`read_lines`)."""
    return [record for _, _, record in read_lines(path, allow_torn=allow_torn)]


def _parse(line: bytes) -> Record | None:
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
