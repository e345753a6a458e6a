"""Run a Python module in a fresh process, measure it like the shell's ``time``, and explain how it ended."""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from llmjobs.errors import LlmjobsError, plain_reason, printable
from llmjobs.redaction import redacted, without_secrets

TAIL_BYTES = 4000
LOOK_S = 0.25


@dataclass(frozen=True)
class Ended:
    """How a child ended and what it used."""

    lines: tuple[Mapping[str, Any], ...]
    """The lines that it reported, in order, without an incomplete last line."""
    exit_status: int
    """Exit code, or minus the signal's number."""
    real_s: float
    """Wall time from just before the process started until it had exited."""
    user_s: float
    system_s: float
    """CPU seconds of the child and of its own children (``wait4``)."""
    peak_bytes: int
    """Peak resident memory, sampled from outside four times a second."""
    timed_out: bool
    stderr_tail: str

    @property
    def result(self) -> Any:
        """The child's result, or None."""
        return next((line["result"] for line in self.lines if "result" in line), None)

    @property
    def error(self) -> str | None:
        """The error line that the child reported, or None."""
        return next((str(line["error"]) for line in self.lines if "error" in line), None)

    @property
    def phase(self) -> str:
        """The last phase that it reported."""
        return next((str(line["phase"]) for line in reversed(self.lines) if "phase" in line), "start")

    def time_record(self) -> dict[str, float]:
        """``real_s``, ``user_s`` and ``system_s`` of the whole process."""
        return {name: round(getattr(self, name), 6) for name in ("real_s", "user_s", "system_s")}


class Child(subprocess.Popen[bytes]):
    """The process of ``run_child``."""

    def end(self) -> resource.struct_rusage:
        """Wait until it has ended, and return what it and its own children used."""
        _, status, usage = os.wait4(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        return usage


def run_child(
    module: str,
    task: Mapping[str, Any],
    *,
    timeout_s: float | None = None,
    under: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    secrets: Collection[str] = (),
) -> Ended:
    """Run ``python -m module`` with ``task``; ``under`` is a command to run it under.

    Of the keys and tokens in the environment, it gets only those in ``secrets``. It is killed when this call ends,
    also by an exception of a signal handler.
    """
    with tempfile.TemporaryDirectory(prefix="llmjobs-") as folder:
        reports, stderr = Path(folder, "reports.jsonl"), Path(folder, "stderr")
        command = [*under, sys.executable, "-P", "-m", module, str(reports)]
        with stderr.open("wb") as stream:
            began = time.monotonic()
            process = Child(
                command,
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                env=without_secrets(keep=secrets) | dict(environment or {}),
            )
            leash = _Leash(process, timeout_s)
            with leash:
                leash.give(json.dumps(task))
                usage = process.end()
                real_s = time.monotonic() - began
        return Ended(
            lines=tuple(_read(reports)),
            exit_status=process.returncode,
            real_s=real_s,
            user_s=usage.ru_utime,
            system_s=usage.ru_stime,
            peak_bytes=leash.peak_bytes,
            timed_out=leash.timed_out,
            stderr_tail=_tail(stderr),
        )


class _Leash:
    """The child's stdin and time limit; kills the child when this process leaves the context."""

    def __init__(self, process: Child, timeout_s: float | None) -> None:
        self.process, self.timed_out, self.peak_bytes = process, False, 0
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._timer = threading.Timer(timeout_s, self._expire) if timeout_s else None

    def give(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def __enter__(self) -> None:
        self._watch.start()
        if self._timer:
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._timer:
            self._timer.cancel()
        if self.process.returncode is None:
            self._kill()
            self.process.wait()
        if self.process.stdin:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def _look(self) -> None:
        """Sample its memory, because the peak of ``wait4`` includes the parent's memory at the time of the fork."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.process.pid)
            while not self._over.wait(LOOK_S):
                self.peak_bytes = max(self.peak_bytes, process.memory_info().rss)

    def _expire(self) -> None:
        self.timed_out = True
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


def _read(path: Path) -> list[Mapping[str, Any]]:
    lines = []
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                lines.append(json.loads(line))
    return lines


def _tail(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as stream:
        stream.seek(max(path.stat().st_size - TAIL_BYTES, 0))
        return redacted(stream.read().decode("utf-8", "replace"))
    return ""


class Reporter:
    """The child's side: reports phases and the result."""

    def __init__(self, path: Path) -> None:
        """Append to ``path``."""
        self._path = path

    def report(self, **line: Any) -> None:
        """Append one line."""
        with self._path.open("ab") as stream:
            stream.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")

    def phase(self, name: str) -> None:
        """Report the phase that starts now."""
        self.report(phase=name)


def serve(work: Callable[[Any, Reporter], Any]) -> None:
    """Run as the child: read the task, call ``work``, report its result; an error becomes one line."""
    reporter = Reporter(Path(sys.argv[1]))
    task = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        reporter.report(result=work(task, reporter))
    except LlmjobsError as error:
        reporter.report(error=str(error))
    except Exception as error:
        reporter.report(error=plain_reason(error, 400))
        raise


def _end_with_parent() -> None:
    # not through sys.stdin: a buffered reader held by a thread cannot be closed at exit
    while os.read(0, 1024):
        pass
    os._exit(1)


GIB = 1 << 30
_CGROUPS = Path("/sys/fs/cgroup")
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def describe_end(ended: Ended) -> str:
    """``was killed by SIGKILL during load``, ``crashed with SIGSEGV …``, ``ended with code 1 …: last line``."""
    if ended.timed_out:
        return f"took longer than its time limit during {ended.phase}"
    if ended.exit_status < 0:
        name = _signal_name(-ended.exit_status)
        verb = "was killed by" if ended.exit_status == -signal.SIGKILL else "crashed with"
        return f"{verb} {name} during {ended.phase}"
    if ended.error:
        return f"failed during {ended.phase}: {ended.error}"
    return f"ended with code {ended.exit_status} during {ended.phase}: {last_line(ended.stderr_tail)}"


def was_killed(ended: Ended) -> bool:
    """Whether the kernel or a person killed it (SIGKILL), and not this program's time limit."""
    return ended.exit_status == -signal.SIGKILL and not ended.timed_out


def out_of_memory(ended: Ended, oom_kills_before: int | None) -> str:
    """The line for a killed child: its memory, and whether the kernel counted a kill for memory."""
    after = oom_kills()
    counted = after is not None and oom_kills_before is not None and after > oom_kills_before
    who = "by the kernel because memory ran out" if counted else "by SIGKILL, most likely because memory ran out"
    return f"killed {who} during {ended.phase}, with {ended.peak_bytes / GIB:.2f} GiB resident"


def oom_kills() -> int | None:
    """Number of processes of any user that the kernel killed for memory since boot; None if it does not count them."""
    return _count_in(Path("/proc/vmstat"))


def own_oom_kills() -> tuple[str, int] | None:
    """Number of processes of this control group that the kernel killed for memory, with the identity of the group.

    The count covers only this group (cgroups(7), ``memory.events`` and ``memory.oom_control``). None if there is no
    such group: macOS, the root group, no access.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            places = [(_CGROUPS / path.strip("/"), "memory.events"), (_CGROUPS, "memory.events")]
        elif "memory" in controllers.split(",") and path != "/":
            places = [(_CGROUPS / "memory" / path.strip("/"), "memory.oom_control")]
        else:
            continue
        for place, name in places:
            if (count := _count_in(place / name)) is not None:
                return f"{place}:{place.stat().st_ino}", count
    return None


def _count_in(file: Path) -> int | None:
    try:
        found = _OOM_KILLS.search(file.read_text())
    except OSError:
        return None
    return int(found[1]) if found else None


def boot_id() -> str | None:
    """Identifier of this boot of the machine; None if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def last_line(text: str) -> str:
    """The last line of a child's stderr that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(lines[-1])[:200] if lines else "the process exited without reporting an error"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
