"""What a worker tells the driver while it runs a unit, in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmjobs.runner.units import Record


@dataclass(frozen=True)
class Opened:
    """The model is loaded and the unit planned."""

    load_s: float | None
    """Seconds of loading; None where it was loaded already."""


@dataclass(frozen=True)
class Advanced:
    """Items are on the disk; ``records`` where the driver shows them."""

    items: int
    records: Sequence[Record] = ()


@dataclass(frozen=True)
class Logged:
    """A line for the driver's terminal."""

    line: str


@dataclass(frozen=True)
class Ended:
    """The unit is whole, or failed with one line."""

    error: str | None = None


Event = Opened | Advanced | Logged | Ended


@dataclass(frozen=True)
class Greeting:
    """A worker's first answer: where it is, and why it cannot work there if it cannot."""

    node_id: str
    host: str
    machine: dict[str, Any]
    refusal: str | None = None
