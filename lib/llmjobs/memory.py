"""Memory: the peaks of this process since a model began to load, a model's mapped files, the machine. No torch.

rss_bytes   resident pages of all kinds (proc(5): ``VmRSS``)
anon_bytes  the part that the system cannot reclaim: anonymous and shared memory, swapped out or not (``RssAnon``,
            ``RssShmem``, ``VmSwap``); None if the system does not show it (macOS)
file_bytes  pages of mapped files (``RssFile``): weights that are used directly from a file, libraries. The system can
            drop them at any time and read them again; None likewise

The kernel keeps a high-water mark of the first (``VmHWM``) but of none of the others, so a thread samples them twenty
times a second while a model is loaded. The mark is reset when a model begins to load (``/proc/self/clear_refs``). If
that is not allowed, the thread's own peak is used. ``anon_bytes`` can miss a short peak between two samples.
"""

import contextlib
import ctypes
import os
import resource
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

# Of this process: the resident memory now, and the peaks since a model began to load.

LOOK_S = 0.05
_STATUS, _CLEAR, _MAPS = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/self/maps")
_RESET_HIGH_WATER = "5"
"""The value that resets it in ``clear_refs`` (proc(5), since Linux 4.0)."""


@dataclass(frozen=True)
class Resident:
    """The memory at one moment."""

    rss_bytes: int
    anon_bytes: int | None
    file_bytes: int | None


@dataclass(frozen=True)
class Peaks:
    """The peaks since a model began to load, or since the process started if none did."""

    rss_bytes: int
    anon_bytes: int | None


def resident() -> Resident:
    """Read the current memory."""
    found = _status()
    if "VmRSS" not in found:
        return Resident(int(psutil.Process().memory_info().rss), None, None)
    if "RssAnon" not in found:
        return Resident(found["VmRSS"], None, None)
    anon = found["RssAnon"] + found.get("RssShmem", 0) + found.get("VmSwap", 0)
    return Resident(found["VmRSS"], anon, found.get("RssFile"))


def high_water_bytes() -> int:
    """Largest resident memory of this process's address space since it started, or since the mark was reset.

    ``getrusage`` counts the parent's memory of the moment of the fork on Linux; ``VmHWM`` does not (proc(5)).
    """
    return _status().get("VmHWM") or _largest_so_far()


def needed_bytes(peak_anon_bytes: int | None, mapped_weight_bytes: int | None) -> int | None:
    """Memory that must be free for a model: what cannot be reclaimed, and the weights that each pass reads.

    Weights that are used directly from a mapped file are read in full in every pass. Other file pages (a file that was
    read to be converted) only stay while nobody needs the room. None if it is not known.
    """
    if peak_anon_bytes is None or mapped_weight_bytes is None:
        return None
    return peak_anon_bytes + mapped_weight_bytes


def _status() -> dict[str, int]:
    """The sizes in ``/proc/self/status``, in bytes; empty if there are none."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in pairs}


def _largest_so_far() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return peak if sys.platform == "darwin" else peak * 1024


def mapped_files() -> list[tuple[int, int]] | None:
    """Address ranges that are mapped from files; None if the system does not show them."""
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return None
    ranges = []
    for line in lines:
        addresses, _, _, _, inode, *path = line.split(maxsplit=5)
        if inode != "0" and path:
            start, end = (int(text, 16) for text in addresses.split("-"))
            ranges.append((start, end))
    return ranges


class PeakWatch:
    """Follows this process's memory from :meth:`begin` to :meth:`end`."""

    def __init__(self) -> None:
        """Create it without starting."""
        self._process, self._resets = 0, False
        self._rss, self._anon = 0, 0
        self._over = threading.Event()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Reset the peaks for a new model, after returning freed memory of the last one to the system."""
        self.end()
        give_back()
        self._process, self._rss, self._anon = os.getpid(), 0, 0
        self._resets = _set_back()
        self._over = threading.Event()
        threading.Thread(target=self._follow, args=(self._over,), name="memory", daemon=True).start()

    def end(self) -> None:
        """Stop sampling; the peaks are kept."""
        self._over.set()

    def peaks(self) -> Peaks:
        """Read the peaks so far, including this moment."""
        if self._process != os.getpid():  # never begun, or a fork of a process that did
            return Peaks(high_water_bytes(), None)
        now = self._look()
        rss = high_water_bytes() if self._resets else self._rss
        return Peaks(rss, None if now.anon_bytes is None else self._anon)

    def _follow(self, over: threading.Event) -> None:
        while not over.wait(LOOK_S):
            self._look()

    def _look(self) -> Resident:
        now = resident()
        with self._lock:
            self._rss, self._anon = max(self._rss, now.rss_bytes), max(self._anon, now.anon_bytes or 0)
        return now


WATCH = PeakWatch()
"""The tracker of this process, which has one model at a time."""


def _set_back() -> bool:
    """Reset the kernel's high-water mark to the resident memory now; returns whether that is allowed."""
    try:
        _CLEAR.write_text(_RESET_HIGH_WATER)
    except OSError:
        return False
    return True


def give_back() -> None:
    """Make the C library return freed memory to the system (glibc; others do so by themselves)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Parameters of ``mallopt(3)``."""
USUAL_THRESHOLD_BYTES, LOW_THRESHOLD_BYTES = 32 << 20, 1 << 20
"""glibc raises its threshold up to the first in a process that frees large blocks; the second is for a while."""


@contextlib.contextmanager
def blocks_given_back() -> Iterator[None]:
    """Let the C library return each freed block of a megabyte or more to the system at once (glibc).

    Quantizing frees many blocks between others that stay, so that the memory of the freed ones could not be returned.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, LOW_THRESHOLD_BYTES)
    try:
        yield
    finally:
        with contextlib.suppress(AttributeError, OSError):
            library = ctypes.CDLL(None)
            library.mallopt(_MMAP_THRESHOLD, USUAL_THRESHOLD_BYTES)
            library.mallopt(_TRIM_THRESHOLD, 2 * USUAL_THRESHOLD_BYTES)
        give_back()


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


def memory_bytes() -> int:
    """Memory that this process may use: that of the machine, or of its container if that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return total


def available_bytes() -> int:
    """Memory that a new process could use now: free and reclaimable, within the container's limit."""
    return min(psutil.virtual_memory().available, _container_room() or 1 << 62)


def _container_room() -> int | None:
    try:
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return None
    return max(memory_bytes() - used, 0)
