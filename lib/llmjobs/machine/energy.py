"""Energy: RAPL for the processor's packages, NVML for a CUDA device. No torch.

Both include other programs that run there. A counter that cannot be read is None with the reason.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from llmjobs.errors import plain_reason, printable

POWERCAP = Path("/sys/class/powercap")
SAMPLE_S = 20.0
"""A package's counter wraps after minutes at full power, so it is read this often."""


@dataclass(frozen=True)
class Joules:
    """Energy of a span by source (``cpu``, ``cuda``), and why a source is missing."""

    by_source: Mapping[str, float]
    reasons: Mapping[str, str]

    @property
    def total_j(self) -> float | None:
        """The sum of all counters, or None if none could be read."""
        return round(sum(self.by_source.values()), 3) if self.by_source else None


@dataclass
class Counter:
    """One cumulative counter in joules; ``wraps_j`` is the value at which it wraps (None: never)."""

    read_j: Callable[[], float]
    wraps_j: float | None = None
    total_j: float = 0.0
    _last: float = field(default=0.0, repr=False)

    def start(self) -> None:
        """Start counting."""
        self.total_j, self._last = 0.0, self.read_j()

    def advance(self) -> None:
        """Add the energy used since the last call."""
        now = self.read_j()
        used = now - self._last
        if used < 0 and self.wraps_j is not None:
            used += self.wraps_j
        self.total_j, self._last = self.total_j + max(used, 0.0), now


class EnergyMeter:
    """Counts the energy of its body; ``joules`` is set at the end."""

    def __init__(self, device: str, uuid: str | None = None, powercap: Path = POWERCAP) -> None:
        """Find the counters of the processor and, for ``cuda``, of the device with ``uuid``."""
        self.counters: dict[str, list[Counter]] = {}
        self.reasons: dict[str, str] = {}
        self.joules = Joules({}, {})
        self._take("cpu", lambda: rapl_counters(powercap))
        if device == "cuda":
            self._take("cuda", lambda: [nvml_counter(uuid)])
        elif device == "mps":
            self.reasons["mps"] = "macOS reports GPU energy only to the administrator (powermetrics)"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        """Start counting."""
        for source in list(self.counters):
            self._each(source, Counter.start)
        if self.counters:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and add up."""
        self._stop.set()
        if self.counters:
            self._thread.join()
        self._advance()
        totals = {source: sum(c.total_j for c in counters) for source, counters in self.counters.items()}
        self.joules = Joules({k: round(v, 3) for k, v in totals.items()}, dict(self.reasons))

    def _take(self, source: str, find: Callable[[], list[Counter]]) -> None:
        try:
            self.counters[source] = find()
        except Unreadable as error:
            self.reasons[source] = str(error)

    def _each(self, source: str, act: Callable[[Counter], None]) -> None:
        try:
            for counter in self.counters[source]:
                act(counter)
        except Exception as error:
            del self.counters[source]
            self.reasons[source] = printable(f"the counter stopped responding: {plain_reason(error)}")[:200]

    def _advance(self) -> None:
        for source in list(self.counters):
            self._each(source, Counter.advance)

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self._advance()


class Unreadable(Exception):  # noqa: N818 - says what is the matter, as the reasons do
    """A counter that does not exist or cannot be read; the text gives the reason."""


def rapl_counters(powercap: Path = POWERCAP) -> list[Counter]:
    """The energy counters of all processor packages.

    Raises:
        Unreadable: the machine has none, or they are the administrator's alone.

    """
    packages = [
        zone
        for zone in sorted(powercap.glob("*-rapl:*"))
        if zone.name.count(":") == 1 and _text(zone / "name").startswith("package")
    ]
    if not packages:
        raise Unreadable("this machine has no RAPL counters (not an Intel or AMD processor, or a virtual machine)")
    return [_rapl_counter(zone) for zone in packages]


def _rapl_counter(zone: Path) -> Counter:
    def read_j() -> float:
        return int((zone / "energy_uj").read_text()) / 1e6

    try:
        read_j()
        wraps_j = int((zone / "max_energy_range_uj").read_text()) / 1e6
    except PermissionError:
        raise Unreadable(f"{zone}/energy_uj can only be read by root; run chmod a+r on it, or run as root") from None
    except (OSError, ValueError) as error:
        raise Unreadable(f"{zone}/energy_uj cannot be read: {error}") from None
    return Counter(read_j, wraps_j)


def nvml_counter(uuid: str | None = None) -> Counter:
    """The energy counter of a CUDA device (NVML, Volta and later), by its UUID; the first one without.

    Raises:
        Unreadable: no NVML, no such device, or a device that does not count.

    """
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        raise Unreadable("nvidia-ml-py is not installed; pip install nvidia-ml-py") from None
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid) if uuid else nvml.nvmlDeviceGetHandleByIndex(0)
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError as error:
        raise Unreadable(f"NVML does not report energy: {error}") from None
    return Counter(lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
