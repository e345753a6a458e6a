"""Dies at a chosen file operation of the run folder, as a kill or as a loss of power.

``kill``: the process ends there; what the kernel already has stays. ``power``: what was not synced is gone as well:
unsynced bytes are cut off (all or a part of them), renames whose folder was not synced are undone. ``error``: the
operation fails with an errno instead (disk full, I/O error), and so does every later one.
"""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from llmjobs import file_operations

OPERATIONS = ("write", "fsync", "fsync_folder", "rename", "truncate", "make_folder")


@dataclass
class Fault:
    """What happens at operation ``at`` (from 1); ``at`` 0 never happens and only counts."""

    at: int
    mode: str = "kill"
    seed: int = 0
    errno: int = 28
    die: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGKILL)
    count: int = 0
    note: Path | None = None
    """Where the number of operations is written at the end."""
    before: Callable[[], object] = lambda: None
    """Called before every operation."""
    synced: dict[Path, int] = field(default_factory=dict)
    renames: list[tuple[Path, Path, bytes | None]] = field(default_factory=list)

    def install(self) -> None:
        """Wrap the operations of :mod:`llmjobs.file_operations` in this process."""
        self.real = {name: getattr(file_operations, name) for name in OPERATIONS}
        for name in OPERATIONS:
            setattr(file_operations, name, self._wrap(name))

    def remove(self) -> None:
        """Put the real operations back."""
        for name, function in self.real.items():
            setattr(file_operations, name, function)

    def _wrap(self, name: str) -> Callable[..., None]:
        def operation(*arguments: object) -> None:
            self.before()
            self.count += 1
            if self.at and (self.count == self.at or (self.mode == "error" and self.count > self.at)):
                self._strike(name, arguments)
            self._note(name, arguments, before=True)
            self.real[name](*arguments)
            self._note(name, arguments, before=False)

        return operation

    def _strike(self, name: str, arguments: tuple) -> None:
        if self.mode == "error":
            raise OSError(self.errno, os.strerror(self.errno))
        if name == "write":
            stream, data = arguments
            self._note(name, arguments, before=True)
            self.real["write"](stream, bytes(data)[: Random(self.seed).randrange(len(data) + 1)])
        if self.mode == "power":
            self._lose_power()
        self.die()

    def _note(self, name: str, arguments: tuple, *, before: bool) -> None:
        """Keep what is needed to know which bytes and names a loss of power would take."""
        if self.mode != "power":
            return
        if name in ("write", "fsync", "truncate"):
            path = Path(f"/proc/self/fd/{arguments[0].fileno()}").readlink()
            if before and path not in self.synced:
                self.synced[path] = path.stat().st_size
            if not before and name == "fsync":
                self.synced[path] = path.stat().st_size
        elif name == "rename" and before:
            source, target = arguments
            self.renames.append((source, target, target.read_bytes() if target.exists() else None))
        elif name == "rename":
            source, target = arguments
            self.synced[target] = self.synced.pop(source, target.stat().st_size)
        elif name == "fsync_folder" and not before:
            self.renames = [r for r in self.renames if r[1].parent != arguments[0]]

    def _lose_power(self) -> None:
        rng = Random(self.seed)
        for path, size in self.synced.items():
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, rng.randint(size, path.stat().st_size))
        undone = rng.randrange(len(self.renames) + 1)
        for source, target, content in reversed(self.renames[len(self.renames) - undone :]):
            shutil.copyfile(target, source)
            if content is None:
                target.unlink()
            else:
                target.write_bytes(content)


def in_child(work: Callable[[], int]) -> int:
    """Run ``work`` in a forked process; returns its exit code, negative for a signal."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code = 70
    try:
        code = work()
    finally:
        os._exit(code)
