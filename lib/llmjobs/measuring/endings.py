"""Why a child process ended, in words, and what the kernel says about memory. No torch."""

import re
import signal
from pathlib import Path

from llmjobs.errors import printable
from llmjobs.measuring.child import Ended

GIB = 1 << 30
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
    """Whether the kernel (or a person) ended it by SIGKILL, not this program's time limit."""
    return ended.exit_status == -signal.SIGKILL and not ended.timed_out


def out_of_memory(ended: Ended, oom_kills_before: int | None) -> str:
    """The line of a killed child: how much it had, and whether the kernel counted a kill for memory."""
    after = oom_kills()
    counted = after is not None and oom_kills_before is not None and after > oom_kills_before
    who = "by the kernel for lack of memory" if counted else "by SIGKILL, most likely for lack of memory"
    return f"killed {who} during {ended.phase}, with {ended.peak_bytes / GIB:.2f} GiB resident"


def oom_kills() -> int | None:
    """How many processes the kernel killed for memory since it started; None where it does not say."""
    try:
        found = _OOM_KILLS.search(Path("/proc/vmstat").read_text())
    except OSError:
        return None
    return int(found[1]) if found else None


def boot_id() -> str | None:
    """Name of this start of the machine; None where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def last_line(text: str) -> str:
    """The last line of a child's stderr that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(lines[-1])[:200] if lines else "it said nothing"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
