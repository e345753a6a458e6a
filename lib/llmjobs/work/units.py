"""What a job gives to the runner: an ordered list of units, and the settings that a resumed unit must share."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

from llmjobs.errors import FingerprintError
from llmjobs.work.folder import RunFolder, UnitFolder

# What a job gives to the runner: an ordered list of units, and for each a piece of work in numbered steps.


@dataclass(frozen=True)
class Unit:
    """One restartable piece of a job, with its own folder."""

    path: str
    """Folder below the run, unique: ``eval/llama/mmlu.astronomy``."""
    declared: Mapping[str, Any]
    """Everything known before a model is loaded that decides the records; compared on every start."""
    group: str = ""
    """Units of one group are consecutive and share what the job loads for them (a model)."""
    size: int = 0
    """Items (questions, turns, cells) for the progress bar, if known."""
    needs: tuple[str, ...] = ()
    """Units whose records this one reads; they come before it in the list."""
    stays: bool = False
    """Always runs in the driver process, because the spending limit is shared by the whole run."""


@dataclass(frozen=True)
class Step:
    """What one step yields; records are deterministic, timing is measured."""

    records: Sequence[Mapping[str, Any]]
    timing: Mapping[str, Any] = field(default_factory=dict)


class Work(Protocol):
    """An opened unit. Step ``i`` gives the same records whether or not the steps before it ran in this process."""

    @property
    def effective(self) -> Mapping[str, Any]:
        """What was actually loaded and planned (builtins only); a resume with another value is refused."""

    @property
    def steps(self) -> int:
        """How many steps the unit has."""

    @property
    def opening(self) -> Mapping[str, Any]:
        """Timing of opening the unit, as a line of ``timings.jsonl``."""

    def step(self, index: int) -> Step:
        """Run step ``index`` (from 0)."""

    def state(self) -> Mapping[str, Any]:
        """Builtins that a resume needs in addition to the number of finished steps."""


class Job(Protocol):
    """One job over one manifest."""

    name: str

    def units(self) -> Sequence[Unit]:
        """All units, in order; loads no model."""

    def open(self, unit: Unit, saved: "Saved | None") -> AbstractContextManager[Work]:
        """Prepare to run ``unit``, from the checkpoint if there is one."""

    def close(self) -> None:
        """Free what was loaded."""


@dataclass(frozen=True)
class Turn:
    """A unit that runs next: to its end, or to the end of block ``through`` (from 0) of its effective ``blocks``."""

    unit: Unit
    through: int | None = None


@runtime_checkable
class TurnsJob(Protocol):
    """A job that decides which unit runs next from the results so far, and may leave units unfinished."""

    @property
    def may_stop_early(self) -> bool:
        """Whether it may leave units unfinished. Known after :meth:`Job.units`."""

    def turns(self, units: Sequence[Unit]) -> Iterable[Turn]:
        """The units in order; the next one is asked for when the turn before it has ended."""


def steps_through(effective: Mapping[str, Any], block: int | None) -> int | None:
    """Return how many steps a unit has up to the end of ``block``; None if it runs to its end.

    ``effective["blocks"]["ends"]`` holds the number of steps up to the end of each block.
    """
    blocks = effective.get("blocks")
    return int(blocks["ends"][block]) if blocks and block is not None else None


class ClusterJob(Job, Protocol):
    """A job that can be sent to another machine."""

    folder: RunFolder

    def for_worker(self) -> Self:
        """A copy without anything loaded, so it can be pickled."""


@dataclass(frozen=True)
class Saved:
    """The part of a checkpoint that :meth:`Job.open` needs."""

    effective: Mapping[str, Any]
    state: Mapping[str, Any]
    steps_done: int
    killed_for_memory: bool = False
    """The kernel killed the previous attempt for memory, in step ``steps_done``."""


# A run is resumed only with the settings that it was started with; the error names the field that differs.

OF_NAMES = ("questions",)
"""Fields whose keys are names (of subjects): an added or removed one is another set of questions."""
_PROMPTS = "the prompts would differ from those that the unit started with"
_EXPLAINED = {
    "template_hash": f"the model's chat template has changed, so {_PROMPTS}",
    "prompt_date": f"the chat template prints the date, so {_PROMPTS}",
    "thinking": f"the chat template's thinking setting has changed, so {_PROMPTS}",
    "template_system": f"the system message that the chat template adds has changed, so {_PROMPTS}",
    "prompts": f"{_PROMPTS}: the tokenizer, its chat template, or the version of transformers or llmjobs has changed",
    "plan": "the batches would differ from those that the unit started with: batch_tokens has changed, this version of"
    " llmjobs plans them differently, or the model's probe gave a different result",
    "blocks": "the questions would be asked in another order than the unit started with",
    "steps": "the steps would differ from those that the unit started with, because this version of llmjobs orders the"
    " questions differently",
}
"""Explanations of fields whose values mean nothing to people."""


def compare(unit: UnitFolder, saved: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse to resume with other settings.

    Raises:
        FingerprintError: names the first field that differs.

    """
    if found := _difference(saved, asked):
        key, was, now = found
        if why := _EXPLAINED.get(key.partition(".")[0]):
            raise FingerprintError(
                f"{unit.path}: {why} ({key}: {_short(was)}, now {_short(now)}). Undo the change or use the versions in"
                " environment.json, give the run another name (--set name=…), or start over with --fresh"
            )
        raise FingerprintError(
            f"{unit.path}: {key} was {_short(was)} and is now {_short(now)}; "
            f"undo the change, give the run another name (--set name=…), or start over with --fresh"
        )


def _difference(
    saved: Mapping[str, Any], asked: Mapping[str, Any], *, names: bool = False
) -> tuple[str, Any, Any] | None:
    """The first field that differs; inside mappings, with its path (``questions.mmlu.astronomy.data_hash``)."""
    for key in dict.fromkeys([*saved, *(asked if names else ())]):
        was, now = saved.get(key), asked.get(key)
        if was == now or (key == "quantization" and _is_renamed(was, now)):
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            if inner := _difference(was, now, names=key in OF_NAMES):
                return f"{key}.{inner[0]}", *inner[1:]
            continue
        return key, was, now
    return None


def _is_renamed(was: object, now: object) -> bool:
    """Whether a quantized checkpoint had a shorter name in an older version: ``gptq``, or ``none`` once unpacked."""
    if not isinstance(was, str) or not isinstance(now, str):
        return False
    return now.startswith(f"{was}-") or (was == "none" and now.endswith("-dequantized"))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
