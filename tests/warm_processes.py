"""Runs processes of llmjobs as forks of one that has paid for the imports, some seconds of CPU each.

``WarmCommands`` runs commands, one at a time; ``WarmChildren`` starts the processes of ``run_child``, and those that
render chat templates. A fork has its own arguments, folder, input, outputs and exit code, as a new interpreter has, and
can be killed like one. A command has the environment that its process was started with. A child has its own, and is a
new interpreter if that differs in something that may be read when a library is imported. Tests that need new
interpreters use the fixture ``new_interpreters``.
"""

import gc
import json
import logging
import os
import re
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, reload
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from llmjobs.machine import child

FOR_COMMANDS = (
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
FOR_CHILDREN = (
    "llmjobs.engines.transformers.generate",
    "llmjobs.engines.transformers.load",
    "llmjobs.engines.transformers.made_up_layers",
    "llmjobs.engines.transformers.score",
    "llmjobs.engines.transformers.shapes",
    "llmjobs.eval.job",
    "llmjobs.machine.cpu_counters",
    "llmjobs.machine.energy",
    "llmjobs.matrix.distributions",
    "llmjobs.statistics.divergence",
    "bitsandbytes",
    "transformers.models.llama.modeling_llama",
)
FOR_TEMPLATES = ("jinja2", "transformers.utils.chat_template_utils")
WITHOUT_TORCH = "llmjobs.engines.llama_cpp."
"""Modules that run in a process without torch."""
READ_LATE = re.compile(r"LLMJOBS_|PYTEST_|TORCHINDUCTOR_CACHE_DIR$|HF_")
"""Variables that no library reads while it is imported, or whose values a fork takes over from its environment."""
EMPTY: Mapping[str, str] = {}
Stream = BinaryIO | int


class WarmCommands:
    """The process; use it as a context manager."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._folder = TemporaryDirectory(prefix="llmjobs-warm-")
        command = [sys.executable, "-P", __file__, "commands", f"{self._folder.name}/socket"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> "WarmCommands":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._folder.cleanup()

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


class WarmChild:
    """A fork, with what is used of a process here."""

    def __init__(self, server: str, arguments: Sequence[str], env: Mapping[str, str], stdout: Stream, stderr: Stream):
        """Run ``python -m ARGUMENTS…``."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(server)
        given, stdin = os.pipe()
        streams, self.stdout = [given], None
        for stream in (stdout, stderr):
            if stream == subprocess.PIPE:
                taken, output = os.pipe()
                self.stdout = os.fdopen(taken, "rb")
            elif isinstance(stream, int):
                output = os.open(os.devnull, os.O_WRONLY)
            else:
                output = os.dup(stream.fileno())
            streams.append(output)
        task = {"arguments": list(arguments), "environment": dict(env), "folder": str(Path.cwd())}
        socket.send_fds(connection, [json.dumps(task).encode() + b"\n"], streams)
        for one in streams:
            os.close(one)
        self._answers = connection.makefile("rb", buffering=0)
        connection.close()
        self.stdin = os.fdopen(stdin, "wb")
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def end(self) -> resource.struct_rusage:
        """Wait until it has ended, and return what it and its own children used."""
        status, usage = json.loads(self._answers.readline())
        self._answers.close()
        self.returncode = os.waitstatus_to_exitcode(status)
        return resource.struct_rusage(usage)

    def wait(self) -> None:
        """Wait until it has ended."""
        if self.returncode is None:
            self.end()

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self.end()
        return self.returncode

    def kill(self) -> None:
        """Kill it."""
        os.kill(self.pid, signal.SIGKILL)


class WarmChildren:
    """Takes the place of ``real``, which starts a process."""

    def __init__(self, real: Callable[..., Any], path: str, kind: str = "", environment: Mapping[str, str] = EMPTY):
        """``path`` is the socket of a process with this ``environment``; with a ``kind``, the first child starts it."""
        self._real = real
        self._path = path
        self._kind = kind
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, command: Sequence[str], **how: Any) -> Any:
        """Start a child."""
        if self._kind and not self._process:
            self._start()
        is_python = command[:3] == [sys.executable, "-P", "-m"] and not command[3].startswith(WITHOUT_TORCH)
        if is_python and _read_early(how["env"]) == _read_early(self._environment):
            return WarmChild(self._path, command[3:], how["env"], how["stdout"], how["stderr"])
        return self._real(command, **how)

    def _start(self) -> None:
        self._environment = child.without_secrets()
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, self._kind, self._path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=self._environment,
        )
        assert self._process.stdout and self._process.stdout.readline(), "it listens from now on"

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.communicate()


def _read_early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not READ_LATE.match(name)}


def import_all(names: Sequence[str]) -> None:
    """Import modules, and leave them out of what the collector of a fork would walk, and so copy."""
    logging.disable(logging.ERROR)  # remarks on optional packages
    for name in names:
        import_module(name)
    logging.disable(logging.NOTSET)
    gc.collect()
    gc.freeze()


def serve(path: str) -> None:
    """Take a task per line, answer with the process id and then the exit code; returns in the forks, too.

    Children are forks of a sibling: a command has computed, and a process that has computed cannot be forked.
    """
    import_all(FOR_COMMANDS + FOR_CHILDREN)
    ended, lifeline = os.pipe()
    listening, told = os.pipe()
    if not os.fork():
        os.close(lifeline)
        return listen(path, ended, lambda: os.close(told))
    os.close(told)
    os.read(listening, 1)
    child.Child = WarmChildren(child.Child, path, environment=dict(os.environ))  # type: ignore[assignment, misc]
    while line := sys.stdin.readline():
        task = json.loads(line)
        process = os.fork()
        if not process:
            return _become_command(**task)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def _become_command(words: Sequence[str], folder: str, paths: Sequence[str]) -> None:
    """Take over the command's folder, input and outputs, and run it to its end, with everything that runs at exit."""
    os.chdir(folder)
    for number, (path, how) in enumerate(zip(paths, (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2), strict=True)):
        os.dup2(os.open(path, how, 0o600), number)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.argv = ["llmjobs", *words]
    from llmjobs.cli import main

    main()


def listen(path: str, lifeline: int, ready: Callable[[], None]) -> None:
    """Fork for each connection to the socket ``path`` until ``lifeline`` is closed; returns in each fork, too."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        ready()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while lifeline not in select.select([server, lifeline], [], [])[0]:
            connection, _ = server.accept()
            if not os.fork():
                server.close()
                return _look_after(connection)
            connection.close()
    return None


def _look_after(connection: socket.socket) -> None:
    """Fork the child, and tell what it used when it has ended; returns in the child, when it has run."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    line, streams, *_ = socket.recv_fds(connection, 1 << 16, 3)
    while not line.endswith(b"\n"):
        line += connection.recv(1 << 16)
    if not (process := os.fork()):
        os.setsid()
        connection.sendall(f"{os.getpid()}\n".encode())
        connection.close()
        return _become_child(*streams, **json.loads(line))
    for stream in streams:
        os.close(stream)
    _, status, usage = os.wait4(process, 0)
    try:
        connection.sendall(json.dumps([status, list(usage)]).encode() + b"\n")
    finally:
        os._exit(0)


def _become_child(*streams: int, arguments: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
    """Take over input, outputs, folder and environment, and run the module."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    constants = reload(import_module("huggingface_hub.constants"))
    import_module("huggingface_hub").hf_api.api.endpoint = constants.ENDPOINT
    module, *sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    kind, place = sys.argv[1:]
    if kind == "commands":
        serve(place)
    else:
        if kind == "templates":
            sys.modules["torch"] = None  # type: ignore[assignment]  # as in the process that renders them
        import_all({"children": FOR_CHILDREN, "templates": FOR_TEMPLATES}[kind])
        listen(place, 0, lambda: print("ready", flush=True))
