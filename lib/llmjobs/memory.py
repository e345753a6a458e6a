"""Memory: the peaks of this process, the part of a model in mapped files, and the memory of the machine. No torch."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from llmjobs.environment import memory_bytes
from llmjobs.process_memory import high_water_bytes, mapped_files, resident


def own_peak_bytes() -> int:
    """Largest resident memory of this process's own address space, in bytes."""
    return high_water_bytes()


def current_bytes() -> int:
    """Resident memory of this process now."""
    return resident().rss_bytes


def current_anon_bytes() -> int:
    """The part of it that the system cannot reclaim; all of it if that is not known."""
    now = resident()
    return now.rss_bytes if now.anon_bytes is None else now.anon_bytes


def mapped_weight_bytes(tensors: Iterable[Any]) -> int | None:
    """Bytes of a model's ``tensors`` that are used directly from a mapped file; None if the system does not show it.

    They are not anonymous memory, but each pass reads them. Without room for them, the disk is read again and again.
    """
    ranges = mapped_files()
    if ranges is None:
        return None
    sizes: dict[int, int] = {}
    for tensor in tensors:
        address, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
        if any(start <= address < end for start, end in ranges):
            sizes[address] = max(size, sizes.get(address, 0))
    return sum(sizes.values())


def available_bytes() -> int:
    """Memory that a new process could use now: free and reclaimable, within the container's limit."""
    return min(psutil.virtual_memory().available, _container_room() or 1 << 62)


def _container_room() -> int | None:
    try:
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return None
    return max(memory_bytes() - used, 0)
