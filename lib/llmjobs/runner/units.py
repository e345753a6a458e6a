"""What a job gives to the runner: an ordered list of units, and for each a piece of work in numbered steps."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

Record = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """One restartable piece of a job, with a folder of its own."""

    path: str
    """Folder below the run, unique: ``eval/llama/mmlu.astronomy``."""
    declared: Mapping[str, Any]
    """Everything known before a model is loaded that decides the records; compared on every start."""
    group: str = ""
    """Units of one group follow each other and share what the job loads for them (a model)."""
    size: int = 0
    """Items (questions, turns, cells) for the progress bar, where known."""
    needs: tuple[str, ...] = ()
    """Units whose records this one reads; they stand before it in the list."""
    stays: bool = False
    """On a cluster it runs in the command's own process all the same: what it counts (money) counts for the run."""


@dataclass(frozen=True)
class Step:
    """What one step yields; records are deterministic, timing is measured."""

    records: Sequence[Record]
    timing: Mapping[str, Any] = field(default_factory=dict)


class Work(Protocol):
    """An opened unit. Step ``i`` gives the same records whether or not the steps before it ran in this process."""

    @property
    def effective(self) -> Mapping[str, Any]:
        """What was really loaded and planned (builtins only); a resume with another value is refused."""

    @property
    def steps(self) -> int:
        """How many steps the unit has."""

    @property
    def opening(self) -> Mapping[str, Any]:
        """Timing of opening the unit, as a line of ``timings.jsonl``."""

    def step(self, index: int) -> Step:
        """Run step ``index`` (from 0)."""

    def state(self) -> Mapping[str, Any]:
        """Builtins that a resume needs besides the number of finished steps."""


class Job(Protocol):
    """One job over one manifest."""

    name: str

    def units(self) -> Sequence[Unit]:
        """All units, in order; loads no model."""

    def open(self, unit: Unit, saved: "Saved | None") -> AbstractContextManager[Work]:
        """Make ready to run ``unit``, from what a checkpoint saved if there is one."""

    def close(self) -> None:
        """Free what was loaded."""


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds for :meth:`Job.open`."""

    effective: Mapping[str, Any]
    state: Mapping[str, Any]
    steps_done: int
    killed_for_memory: bool = False
    """The kernel ended the attempt before for lack of memory, in step ``steps_done``."""
