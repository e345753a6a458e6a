"""Why a child process ended, in words, and what the kernel says about memory. No torch."""

import re
import signal
from pathlib import Path

from llmjobs.errors import printable
from llmjobs.measuring.child import Ended

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
    """Whether the kernel (or a person) ended it by SIGKILL, not this program's time limit."""
    return ended.exit_status == -signal.SIGKILL and not ended.timed_out


def out_of_memory(ended: Ended, oom_kills_before: int | None) -> str:
    """The line of a killed child: how much it had, and whether the kernel counted a kill for memory."""
    after = oom_kills()
    counted = after is not None and oom_kills_before is not None and after > oom_kills_before
    who = "by the kernel for lack of memory" if counted else "by SIGKILL, most likely for lack of memory"
    return f"killed {who} during {ended.phase}, with {ended.peak_bytes / GIB:.2f} GiB resident"


def oom_kills() -> int | None:
    """How many processes the kernel killed for memory since it started, anybody's; None where it does not say."""
    return _count_in(Path("/proc/vmstat"))


def own_oom_kills() -> tuple[str, int] | None:
    """How many processes of this one's own control group the kernel killed for memory, with the group's identity.

    The count is of the group alone, whoever ran out of memory (cgroups(7), ``memory.events`` and
    ``memory.oom_control``). None where there is no such group: macOS, the root group, no access.
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
