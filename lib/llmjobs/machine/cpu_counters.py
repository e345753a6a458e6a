"""CPU cycles and instructions by ``perf_event_open`` (Linux), through ctypes. No torch.

The counters cover this process and every thread that it starts afterwards, only in user mode if the kernel allows no
more (``kernel.perf_event_paranoid`` 2). If the machine has no counters, the values are None with the reason; nothing is
estimated. The structure is that of perf_event_open(2).
"""

import contextlib
import ctypes
import errno
import os
import platform
import struct
import sys
from dataclasses import dataclass
from typing import Self

_SYSCALL = {"x86_64": 298, "aarch64": 241}
_HARDWARE = 0
_EVENTS = {"cycles": 0, "instructions": 1}
_ATTR_BYTES = 112
_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HV = 1 << 1, 1 << 5, 1 << 6
_READ_TIMES = 0x3
"""PERF_FORMAT_TOTAL_TIME_ENABLED and _RUNNING: show whether the counter had to share the hardware."""
_CLOEXEC = 1 << 3


@dataclass(frozen=True)
class Counts:
    """Totals since the counters were opened; None with a reason if they cannot be read."""

    cycles: int | None
    instructions: int | None
    reason: str | None
    kernel_included: bool = False


class CpuCounters:
    """Open counters of this process; use as a context."""

    def __init__(self) -> None:
        """Open the counters that the kernel allows."""
        self._descriptors: dict[str, int] = {}
        self.reason: str | None = None
        self.kernel_included = True
        try:
            try:
                self._open_all(_EXCLUDE_HV)
            except PermissionError:
                self.kernel_included = False
                self._open_all(_EXCLUDE_HV | _EXCLUDE_KERNEL)
        except OSError as error:
            self.close()
            self.reason = _why_not(error)

    def read(self) -> Counts:
        """Cycles and instructions so far."""
        if not self._descriptors:
            return Counts(None, None, self.reason)
        values = {name: _value(os.read(descriptor, 24)) for name, descriptor in self._descriptors.items()}
        if None in values.values():
            return Counts(None, None, "the counters were shared with other programs and did not run all the time")
        return Counts(values["cycles"], values["instructions"], None, self.kernel_included)

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._descriptors = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_all(self, flags: int) -> None:
        for name, config in _EVENTS.items():
            self._descriptors[name] = _open(config, flags | _INHERIT)


def _value(data: bytes) -> int | None:
    value, enabled, running = struct.unpack("QQQ", data)
    return int(value) if running and running >= enabled else None


def _open(config: int, flags: int) -> int:
    number = _SYSCALL.get(platform.machine()) if sys.platform == "linux" else None
    if number is None:
        raise OSError(errno.ENOSYS, "perf_event_open")
    head = struct.pack("IIQQQQQ", _HARDWARE, _ATTR_BYTES, config, 0, 0, _READ_TIMES, flags)
    attributes = ctypes.create_string_buffer(head, _ATTR_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.syscall(number, attributes, 0, -1, -1, ctypes.c_ulong(_CLOEXEC)))
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return descriptor


def _why_not(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "this user may not read CPU counters (kernel.perf_event_paranoid, or the rules of the container)"
    if error.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV):
        return "this processor or virtual machine has no CPU counters"
    if error.errno == errno.ENOSYS:
        return f"there are no perf events on {platform.system()} {platform.machine()}"
    return f"perf events cannot be opened: {error.strerror}"
