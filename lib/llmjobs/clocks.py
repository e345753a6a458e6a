"""Definitions and measurement of times and memory. No torch: the clock of a device is passed in.

real_s    wall time of a monotonic clock
user_s    CPU seconds in user mode of this process and its finished children; with several threads it can exceed real_s
system_s  CPU seconds in the kernel, likewise
gpu_s     seconds between device events around the work, of all devices together; None if there are none (CPU, MPS)
peak_rss_bytes     largest resident memory of this process since its model began to load (since it began, without one)
peak_anon_bytes    the part of it that the system cannot reclaim (see ``memory``); None if it is not known
peak_device_bytes  largest memory that the allocator held in this span, of all devices together; None on the CPU
gpu_s_each, peak_device_bytes_each   of each device, if a model is spread over several

CPU seconds are those of ``getrusage(2)``: their sum is exact to the microsecond; the split into user and system
mode is an estimate from the kernel's ticks. (``times(2)`` has hundredths of a second.)
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from llmjobs.memory import WATCH

NO_GPU_TIME = {
    "cpu": "the model ran on the CPU",
    "mps": "Apple's GPU has no device events that torch can read; real_s is synchronized wall time",
}
"""Why there is no GPU time, by device."""


class DeviceClock(Protocol):
    """Times spans on a device (see ``llmjobs.engines``)."""

    def start(self) -> None:
        """Begin a span."""

    def stop(self) -> tuple[float | None, int | None]:
        """End it; returns seconds by device events and peak memory in bytes, each None if not available."""

    def each(self) -> tuple[tuple[float, int], ...]:
        """Seconds and peak bytes of each device in the span that ended; empty if there is none."""


@dataclass
class Span:
    """The figures of one span; zero until it ends."""

    real_s: float = 0.0
    user_s: float = 0.0
    system_s: float = 0.0
    gpu_s: float | None = None
    peak_rss_bytes: int = 0
    peak_anon_bytes: int | None = None
    peak_device_bytes: int | None = None
    gpu_s_each: tuple[float, ...] = ()
    peak_device_bytes_each: tuple[int, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Rounded to microseconds, ready for a line of ``timings.jsonl``."""
        several: dict[str, Any] = {}
        if len(self.peak_device_bytes_each) > 1:
            several["peak_device_bytes_each"] = list(self.peak_device_bytes_each)
            several["gpu_s_each"] = [round(seconds, 6) for seconds in self.gpu_s_each]
        return {
            "real_s": round(self.real_s, 6),
            "user_s": round(self.user_s, 6),
            "system_s": round(self.system_s, 6),
            "gpu_s": None if self.gpu_s is None else round(self.gpu_s, 6),
            "peak_rss_bytes": self.peak_rss_bytes,
            "peak_anon_bytes": self.peak_anon_bytes,
            "peak_device_bytes": self.peak_device_bytes,
            **several,
        }


@contextmanager
def measured(device: DeviceClock | None = None) -> Iterator[Span]:
    """Measure the body; the span's figures are set when it ends."""
    span = Span()
    if device:
        device.start()
    before, began = _cpu_seconds(), time.monotonic()
    try:
        yield span
    finally:
        if device:
            span.gpu_s, span.peak_device_bytes = device.stop()
            each = device.each()
            span.gpu_s_each = tuple(seconds for seconds, _ in each)
            span.peak_device_bytes_each = tuple(peak for _, peak in each)
        after = _cpu_seconds()
        span.real_s = time.monotonic() - began
        span.user_s, span.system_s = (now - then for now, then in zip(after, before, strict=True))
        peaks = WATCH.peaks()
        span.peak_rss_bytes, span.peak_anon_bytes = peaks.rss_bytes, peaks.anon_bytes


STEP_SOUGHT_S = 0.05


def cpu_step_s() -> float | None:
    """The smallest step of the CPU seconds seen while computing for a moment; None if they did not move.

    A microsecond where the kernel accounts exactly, a hundredth of a second where it counts ticks.
    """
    steps, last = [], sum(_cpu_seconds())
    until = time.monotonic() + STEP_SOUGHT_S
    while time.monotonic() < until:
        if (now := sum(_cpu_seconds())) > last:
            steps.append(now - last)
            last = now
    return min(steps, default=None)


def _cpu_seconds() -> tuple[float, float]:
    """User and system seconds of this process and of its children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + children.ru_utime, own.ru_stime + children.ru_stime
