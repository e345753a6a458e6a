"""Out-of-memory kills: how they are detected, and the smaller batches that the next attempt uses."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmjobs.errors import ModelError
from llmjobs.machine.child import boot_id, oom_kills, own_oom_kills
from llmjobs.work.units import Saved

# Whether the kernel killed the previous attempt for memory.

Note = dict[str, Any]
MOST_VANISHED = 5
"""This many unexplained ends in a row count as a kill if the kernel does not count kills, as for a matrix cell."""
MOST_COUNTED = 2
"""The same if the machine's count has grown, which another process on the machine may have caused."""


def note_of_attempt() -> Note:
    """The kernel's counts when an attempt begins; builtins only."""
    group, kills = own_oom_kills() or (None, None)
    return {"boot": boot_id(), "oom_kills": oom_kills(), "group": group, "group_kills": kills}


def was_killed_for_memory(left: Mapping[str, Any], vanished: int) -> bool:
    """Judge an attempt that left its note; ``vanished`` counts such ends since the last save, including this one."""
    group, kills = own_oom_kills() or (None, None)
    same_boot = left.get("boot") == boot_id()
    if kills is not None and same_boot and left.get("group") == group and isinstance(left.get("group_kills"), int):
        return bool(kills > left["group_kills"])
    before, now = left.get("oom_kills"), oom_kills()
    if before is None or now is None:
        return vanished % MOST_VANISHED == 0
    return same_boot and bool(now > before) and vanished % MOST_COUNTED == 0


# The consequence of a kill: smaller batches for the current unit and the model's later units.


@dataclass
class MemoryLimits:
    """Limits of one model in a run, stored in its ``model.json``."""

    token_limit: int | None = None
    """Maximum tokens per batch when scoring; None: as planned."""
    row_limit: int | None = None
    """Maximum replies generated at once; None: the generator's own limit."""

    @classmethod
    def read(cls, model_file: Mapping[str, Any]) -> "MemoryLimits":
        """Read the limits that an earlier attempt stored."""
        found = {name: model_file.get(name) for name in ("token_limit", "row_limit")}
        return cls(**{name: value for name, value in found.items() if isinstance(value, int) and value > 0})

    def to_record(self) -> dict[str, int]:
        """The limits that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def tokens(self, saved: Saved | None, step_tokens: Sequence[int]) -> int | None:
        """The limit for a unit that scores; after a kill, half of the current batch.

        ``step_tokens``: tokens of the batch of each step, 0 for a step without a batch.

        Raises:
            ModelError: there is nothing left to halve.

        """
        limit = saved.state.get("token_limit") if saved else self.token_limit
        at_hand = step_tokens[saved.steps_done] if saved and saved.steps_done < len(step_tokens) else 0
        if saved and saved.killed_for_memory and at_hand:
            limit = self.token_limit = _half(min(limit or at_hand, at_hand))
        return limit

    def rows(self, saved: Saved | None, usual: int) -> int:
        """The limit for a unit that generates; after a kill, half of it.

        Raises:
            ModelError: there is nothing left to halve.

        """
        limit = int((saved.state.get("row_limit") if saved else self.row_limit) or usual)
        if saved and saved.killed_for_memory:
            limit = self.row_limit = _half(limit)
        return limit


def _half(limit: int) -> int:
    if limit <= 1:
        raise ModelError(
            "ran out of memory even with the smallest batch and was killed; use quantization: 4bit, a smaller model, "
            "or a machine with more memory"
        )
    return limit // 2
