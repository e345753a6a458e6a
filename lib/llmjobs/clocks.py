"""What is measured, each defined before it is measured. No torch: a device's own clock is passed in.

real_s    wall time by a clock that never jumps back
user_s    CPU seconds in user mode of this process and its finished children; with several threads it passes real_s
system_s  CPU seconds in the kernel, likewise
gpu_s     seconds between device events around the work; None where the device has none (CPU, Apple's GPU)
peak_rss_bytes     largest resident memory of this process so far
peak_device_bytes  largest memory that the allocator held on the device in this span; None on the CPU
"""

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol


class DeviceClock(Protocol):
    """Times spans on a device (see ``llmjobs.models.device``)."""

    def start(self) -> None:
        """Begin a span."""

    def stop(self) -> tuple[float | None, int | None]:
        """End it: seconds by device events and the peak of its memory in bytes, each None where there is none."""


@dataclass
class Span:
    """The figures of one span; zero until it ends."""

    real_s: float = 0.0
    user_s: float = 0.0
    system_s: float = 0.0
    gpu_s: float | None = None
    peak_rss_bytes: int = 0
    peak_device_bytes: int | None = None

    def to_record(self) -> dict[str, Any]:
        """Rounded to microseconds, ready for a line of ``timings.jsonl``."""
        return {
            "real_s": round(self.real_s, 6),
            "user_s": round(self.user_s, 6),
            "system_s": round(self.system_s, 6),
            "gpu_s": None if self.gpu_s is None else round(self.gpu_s, 6),
            "peak_rss_bytes": self.peak_rss_bytes,
            "peak_device_bytes": self.peak_device_bytes,
        }


@contextmanager
def measured(device: DeviceClock | None = None) -> Iterator[Span]:
    """Measure the body; the span's figures are set when it ends."""
    span = Span()
    if device:
        device.start()
    before, began = os.times(), time.monotonic()
    try:
        yield span
    finally:
        if device:
            span.gpu_s, span.peak_device_bytes = device.stop()
        after = os.times()
        span.real_s = time.monotonic() - began
        span.user_s = after.user - before.user + after.children_user - before.children_user
        span.system_s = after.system - before.system + after.children_system - before.children_system
        span.peak_rss_bytes = peak_rss_bytes()


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far (the kernel counts KiB on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
