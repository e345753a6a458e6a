"""Memory: the peak of this process, and what the machine has. No torch."""

import re
from pathlib import Path

import psutil

from llmjobs.clocks import peak_rss_bytes
from llmjobs.environment import memory_bytes

_HIGH_WATER = re.compile(r"VmHWM:\s+(\d+) kB")


def own_peak_bytes() -> int:
    """Largest resident memory of this process's own address space, in bytes.

    ``getrusage`` counts the parent's memory of the moment of the fork on Linux; ``VmHWM`` does not (proc(5)).
    """
    try:
        if found := _HIGH_WATER.search(Path("/proc/self/status").read_text()):
            return int(found[1]) * 1024
    except OSError:
        pass
    return peak_rss_bytes()


def current_bytes() -> int:
    """Resident memory of this process now."""
    return int(psutil.Process().memory_info().rss)


def available_bytes() -> int:
    """Memory that a new process could take now: free and reclaimable, within the container's limit."""
    return min(psutil.virtual_memory().available, _container_room() or 1 << 62)


def _container_room() -> int | None:
    try:
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return None
    return max(memory_bytes() - used, 0)
