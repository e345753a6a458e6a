"""Reads the next model's files into the page cache while the last one still runs."""

import os
from pathlib import Path

import psutil

SHARE_OF_FREE_MEMORY = 0.5


def prefetch(folder: Path) -> int:
    """Ask the kernel to read the weights in ``folder`` ahead; returns the bytes asked for.

    Does nothing where they would take more than half of the free memory, or where the system has no such call.
    """
    files = [p.resolve() for p in sorted(folder.glob("*.safetensors"))] if folder.is_dir() else []
    total = sum(p.stat().st_size for p in files)
    if not hasattr(os, "posix_fadvise") or total > psutil.virtual_memory().available * SHARE_OF_FREE_MEMORY:
        return 0
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)
    return total
