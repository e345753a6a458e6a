"""Append-only JSONL files: records and timings.

A line is written whole, then synced; the checkpoint then holds the file's length. On resume the file is cut at that
length, so a torn last line never survives. Before each write the file must still have the length that this process
left it at: so of two processes that a file system without locks lets in, one stops before it can do harm.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from llmjobs.errors import DataError, RunFolderError
from llmjobs.runfolder import disk

Record = dict[str, Any]


def encode(record: Mapping[str, Any]) -> bytes:
    """One JSON line; the same record gives the same bytes everywhere."""
    return (
        json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")
        + b"\n"
    )


class Journal:
    """One JSONL file open for appending, cut to ``size`` bytes first."""

    def __init__(self, path: Path, size: int) -> None:
        """Open ``path``, creating it where it is missing.

        Raises:
            RunFolderError: the file is shorter than ``size``: something outside llmjobs changed it; or the disk fails.

        """
        self.path, self.size = path, size
        with disk.clear_errors(path):
            disk.make_folder(path.parent)
            is_new = not path.exists()
            _part_from_copies(path)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            self._stream = os.fdopen(descriptor, "rb+", buffering=0)
            try:
                self._cut()
                if is_new:
                    disk.fsync_folder(path.parent)
            except BaseException:
                self._stream.close()
                raise

    def _cut(self) -> None:
        length = self._stream.seek(0, os.SEEK_END)
        if length < self.size:
            raise RunFolderError(
                f"{self.path}: {length} bytes, but {self.size} were saved; it was changed from outside: "
                "restore it or use --fresh"
            )
        if length > self.size:
            disk.truncate(self._stream, self.size)
            disk.fsync(self._stream)
        self._stream.seek(self.size)

    def check_alone(self) -> None:
        """See that nobody else wrote into the file.

        Raises:
            RunFolderError: its length is not what this process left; or it is gone.

        """
        with disk.clear_errors(self.path):
            length = self.path.stat().st_size
        if length != self.size:
            raise RunFolderError(
                f"{self.path}: has {length} bytes, but this process left it at {self.size}: another process works in "
                "this run, or changed it; stop one of them and give the same command again"
            )

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the records and bring them to the disk."""
        data = b"".join(map(encode, records))
        if data:
            self.check_alone()
            with disk.clear_errors(self.path):
                try:
                    disk.write(self._stream, data)
                    disk.fsync(self._stream)
                except OSError:
                    self._take_back()
                    raise
            self.size += len(data)

    def _take_back(self) -> None:
        """Leave no half line behind, so that a process that lives on can write again once there is room."""
        with contextlib.suppress(OSError):
            disk.truncate(self._stream, self.size)
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


def _part_from_copies(path: Path) -> None:
    """Give a file that has a second name (a backup by hard links, or a trap) its own content, to append to."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            disk.write_whole(path, path.read_bytes())


def read_lines(path: Path, *, allow_torn: bool = False) -> Iterator[tuple[int, int, Record]]:
    """Yield ``(line number, end offset in bytes, record)``.

    With ``allow_torn`` a last line that is cut off (no newline, or damaged with nothing after it) ends the reading.

    Raises:
        DataError: a damaged line, naming file and line.

    """
    end = 0
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                end += len(line)
                record = _parse(line)
                if record is None:
                    if allow_torn and not stream.read(1):
                        return
                    raise DataError(f"{path}:{number}: not a whole JSON object; restore the file or run with --fresh")
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
