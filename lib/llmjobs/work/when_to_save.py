"""When a unit saves, and in which order: its records, its timings, then the checkpoint that refers to both."""

import time
from collections.abc import Mapping
from typing import Any

from llmjobs.work import checkpoint, memory_kills
from llmjobs.work.folder import UnitFolder
from llmjobs.work.journal import Journal, Record
from llmjobs.work.unit_progress import Cursor
from llmjobs.work.units import Step, Work

SHARE_OF_TIME = 0.005
"""Maximum share of a unit's time that is spent on saving its steps, as far as :data:`MOST_WAIT_S` allows. Together with
starting and finishing units and runs, saving takes less than 1 %."""
MOST_WAIT_S = 10.0
"""Longest time between two saves, not counting a long step: what a kill can cost in addition to the current step."""


class Writer:
    """Appends steps to a unit's journals, then updates its checkpoint."""

    def __init__(self, unit: UnitFolder, cursor: Cursor) -> None:
        """Open the journals at the cursor and cut off what was not saved."""
        self.unit, self.cursor = unit, cursor
        self.records = Journal(unit.records, cursor.records_bytes, cursor.records_sha256)
        try:
            self.timings = Journal(unit.timings, cursor.timings_bytes, cursor.timings_sha256)
        except BaseException:  # a signal's exception too, which may come at any moment
            self.records.close()
            raise
        self._clock = time.monotonic()
        self._saved: dict[str, Any] = {}
        self._records: list[Record] = []
        self._timings: list[Record] = []
        self._saving_s = 0.0

    def opened(self, work: Work, *, new_attempt: bool = True) -> None:
        """Record that the unit was opened; its time counts from when the writer was made.

        It is no ``new_attempt`` if this process has opened the unit before, for an earlier block of its questions.
        """
        opening, effective, state = work.opening, work.effective, work.state()
        self.cursor.attempts += new_attempt
        self.cursor.steps = work.steps
        self.cursor.running = memory_kills.note_of_attempt()
        self.cursor.effective, self.cursor.state = dict(effective), dict(state)
        kills = {"memory_kills": self.cursor.memory_kills} if self.cursor.memory_kills else {}
        self._timings.append({"step": -1, "phase": "open", "attempt": self.cursor.attempts, **opening, **kills})
        self._save()

    def step(self, index: int, step: Step, state: Mapping[str, Any], *, last: bool) -> None:
        """Add one step's records and timing, and save; the ``last`` step finishes the unit.

        If steps are shorter than 200 times the duration of a save, several are saved together, after
        :data:`MOST_WAIT_S` at the latest, so that saving takes less than 1 % of the time on any model and disk.
        """
        self._records += [{**record, "step": index} for record in step.records]
        self._timings.append({"step": index, "phase": "run", "attempt": self.cursor.attempts, **step.timing})
        self.cursor.steps_done = index + 1
        self.cursor.items_done += int(step.timing.get("items", len(step.records)))
        self.cursor.state, self.cursor.vanished = dict(state), 0
        if last:
            self.cursor.done, self.cursor.running = True, None
        if last or time.monotonic() - self._clock >= min(self._saving_s / SHARE_OF_TIME, MOST_WAIT_S):
            self._save()

    def finish(self) -> None:
        """Mark a unit without steps as finished."""
        self.cursor.done, self.cursor.running = True, None
        self._save()

    def pause(self) -> None:
        """Save at the end of a block of questions."""
        self.cursor.running = None
        self._save()

    def note_end(self) -> None:
        """Save pending steps and remove the note of this attempt, which a signal or a reported error ends.

        If the end came in the middle of a save, the checkpoint keeps its content.
        """
        if self._timings:
            self.cursor.running = None
            self._save()
        elif self._saved.get("running") is not None:
            saves = self._saved["saves"] + 1
            checkpoint.save(self.unit.checkpoint, self._saved | {"running": None, "vanished": 0, "saves": saves})

    def close(self) -> None:
        """Close the journals."""
        self.records.close()
        self.timings.close()

    def _save(self) -> None:
        """Write the records, then their timings, then the checkpoint that refers to both."""
        began = time.monotonic()
        self.cursor.real_s += max(began - self._clock, 0.0)
        self._clock = began
        records, timings = self._records, self._timings
        self._records, self._timings = [], []
        self.records.append(records)
        self.timings.append(timings)
        self.records.check_alone()
        self.timings.check_alone()
        self.cursor.records_bytes, self.cursor.timings_bytes = self.records.size, self.timings.size
        self.cursor.records_sha256, self.cursor.timings_sha256 = self.records.digest, self.timings.digest
        self.cursor.saves += 1
        state = dict(vars(self.cursor))
        checkpoint.save(self.unit.checkpoint, state)
        self._saved, self._saving_s = state, time.monotonic() - began
