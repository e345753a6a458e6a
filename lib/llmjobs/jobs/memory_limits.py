"""What a kill for lack of memory leaves behind: smaller batches, for the unit at hand and the model's units after it.

The plan of a unit stays as it is; a batch above the limit is run in halves, as after an out-of-memory error within a
process. That moves log-likelihoods by rounding at most, and is done only where the kernel says that it killed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llmjobs.errors import ModelError
from llmjobs.runner.units import Saved
from llmjobs.scoring.plan import UnitPlan


@dataclass
class MemoryLimits:
    """Limits of one model in a run; they stand in its ``model.json``."""

    token_limit: int | None = None
    """Most tokens of a batch when scoring; None: as planned."""
    row_limit: int | None = None
    """Most replies that are generated at once; None: the generator's own."""

    @classmethod
    def read(cls, model_file: Mapping[str, Any]) -> "MemoryLimits":
        """Take what an earlier attempt left."""
        found = {name: model_file.get(name) for name in ("token_limit", "row_limit")}
        return cls(**{name: value for name, value in found.items() if isinstance(value, int) and value > 0})

    def to_record(self) -> dict[str, int]:
        """Those that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def tokens(self, saved: Saved | None, plan: UnitPlan) -> int | None:
        """The limit for a unit that scores; half of the batch at hand after a kill.

        Raises:
            ModelError: there is nothing left to halve.

        """
        limit = saved.state.get("token_limit") if saved else self.token_limit
        if saved and saved.killed_for_memory and saved.steps_done < len(plan.batches):
            at_hand = plan.batches[saved.steps_done].tokens
            limit = self.token_limit = _half(min(limit or at_hand, at_hand))
        return limit

    def rows(self, saved: Saved | None, usual: int) -> int:
        """The limit for a unit that generates; half of it after a kill.

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
            "was killed for lack of memory with the smallest batch there is; use quantization: 4bit, a smaller model, "
            "or a machine with more memory"
        )
    return limit // 2
