"""Runs llmjobs commands in forks of one process that has paid for the imports, some seconds of CPU each.

A command has its own arguments, folder, input, output and exit code, as one that a shell starts, and can be killed like
one. The environment is the one that the process was started with. One command runs at a time.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

MODULES = (
    "llmjobs.cli",
    "llmjobs.chat.open_backend",
    "llmjobs.converse.job",
    "llmjobs.eval.job",
    "llmjobs.matrix.job",
    "llmjobs.mtbench.job",
    "llmjobs.prepare.doctor",
    "llmjobs.prepare.plan",
    "llmjobs.make_report",
    "matplotlib.backends.backend_agg",
)


class WarmCommands:
    """The process; use it as a context manager."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> "WarmCommands":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, words: Sequence[str], folder: Path, said: str = "") -> subprocess.CompletedProcess[str]:
        """Run ``llmjobs WORDS…`` in ``folder`` with ``said`` as input."""
        with self.start(words, folder, said) as command:
            return command.end()

    @contextmanager
    def start(self, words: Sequence[str], folder: Path, said: str = "") -> Iterator["Running"]:
        """Start ``llmjobs WORDS…``; call ``end`` before the block is left."""
        with TemporaryDirectory(prefix="llmjobs-warm-") as place:
            paths = [Path(place, name) for name in ("in", "out", "err")]
            paths[0].write_text(said)
            task = {"words": list(words), "folder": str(folder), "paths": list(map(str, paths))}
            assert self._process.stdin
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
            yield Running(["llmjobs", *words], int(self._answer()), paths[1:], self._answer)

    def _answer(self) -> str:
        assert self._process.stdout
        answer = self._process.stdout.readline()
        assert answer, "the process that runs the commands has ended"
        return answer


@dataclass(frozen=True)
class Running:
    """A command that was started."""

    words: list[str]
    pid: int
    outputs: list[Path]
    ended: Callable[[], str]
    """Waits for the exit code."""

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def end(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end; the exit code is negative for a signal."""
        code = int(self.ended())
        out, err = (path.read_text(encoding="utf-8") if path.exists() else "" for path in self.outputs)
        return subprocess.CompletedProcess(self.words, code, out, err)


def serve() -> None:
    """Take a task per line, answer with the process id and then the exit code; returns in the fork that runs it."""
    for name in MODULES:
        import_module(name)
    gc.collect()
    gc.freeze()  # else the collector of a fork would walk, and copy, what is shared with it
    while line := sys.stdin.readline():
        task = json.loads(line)
        process = os.fork()
        if not process:
            return _become(**task)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def _become(words: Sequence[str], folder: str, paths: Sequence[str]) -> None:
    """Take over the command's folder, input and outputs, and run it to its end, with everything that runs at exit."""
    os.chdir(folder)
    for number, (path, how) in enumerate(zip(paths, (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2), strict=True)):
        os.dup2(os.open(path, how, 0o600), number)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.argv = ["llmjobs", *words]
    from llmjobs.cli import main

    main()


if __name__ == "__main__":
    serve()
