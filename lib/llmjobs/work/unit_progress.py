"""How far a unit has got, as its checkpoint says: read, rebuilt from the records, or put back to an earlier step."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from llmjobs import file_operations
from llmjobs.errors import DataError, RunFolderError, printable
from llmjobs.work import checkpoint, memory_kills
from llmjobs.work.folder import CHECKPOINT, UNIT_FILE, RunFolder, UnitFolder, read_object, to_json
from llmjobs.work.integrity import check_state
from llmjobs.work.journal import Journal, read_lines
from llmjobs.work.units import Saved, compare


@dataclass
class Cursor:
    """The content of a unit's checkpoint; builtins only.

    ``records_bytes`` and ``timings_bytes`` are the lengths to which the journals are cut on resume; ``records_sha256``
    and ``timings_sha256`` are the digests of these bytes (None in runs of an older version). ``steps`` is the total
    number of steps (None until the unit is opened, and in older runs). ``real_s`` is the time used so far in all
    attempts, including loading. ``running`` is the note of the current attempt (see ``memory_kills``). ``vanished``
    counts attempts that ended unseen during the current step, ``memory_kills`` those that the kernel killed for memory.
    ``saves`` numbers the checkpoints.
    """

    declared: dict[str, Any]
    effective: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    steps_done: int = 0
    items_done: int = 0
    records_bytes: int = 0
    timings_bytes: int = 0
    records_sha256: str | None = None
    timings_sha256: str | None = None
    steps: int | None = None
    attempts: int = 0
    real_s: float = 0.0
    done: bool = False
    running: memory_kills.Note | None = None
    vanished: int = 0
    memory_kills: int = 0
    saves: int = 0

    def saved(self, *, killed_for_memory: bool = False) -> Saved | None:
        """What :meth:`Job.open` needs to resume; None before the first step was planned."""
        return Saved(self.effective, self.state, self.steps_done, killed_for_memory) if self.effective else None

    def count_unseen_end(self) -> bool:
        """Count an attempt that left its note; returns whether the kernel killed it for memory."""
        if self.running is None or self.done:
            return False
        self.vanished += 1
        killed = memory_kills.was_killed_for_memory(self.running, self.vanished)
        self.memory_kills += killed
        return killed


def load(unit: UnitFolder, declared: Mapping[str, Any]) -> tuple[Cursor, str | None]:
    """Read a unit's cursor, or start one; the remark says what had to be repaired.

    Raises:
        FingerprintError: the unit was made with other settings.
        DataError: no checkpoint can be used, and a line of the records is damaged.

    """
    try:
        loaded = checkpoint.load(unit.checkpoint)
        cursor = _cursor_of(unit, loaded.state) if loaded else Cursor(dict(declared))
    except RunFolderError as error:
        cursor = _from_records(unit, declared)
        return cursor, f"{error}; continuing from {unit.records.name} ({cursor.steps_done} steps)"
    if loaded is None:
        return cursor, None
    compare(unit, cursor.declared, declared)
    cursor.declared = dict(declared)  # equal but for fields that an older version did not know
    return cursor, loaded.remark or _remark_on_age(unit, cursor)


def _cursor_of(unit: UnitFolder, state: Mapping[str, Any]) -> Cursor:
    kinds = {"declared": dict, "effective": dict, "state": dict, "steps_done": int, "records_bytes": int}
    names = {f.name for f in fields(Cursor)}
    cursor = Cursor(**{"declared": {}} | {key: value for key, value in state.items() if key in names})
    counts = (getattr(cursor, name) for name in _COUNTS)
    digests = (cursor.records_sha256, cursor.timings_sha256)
    fits = all(isinstance(state.get(name), kind) for name, kind in kinds.items())
    fits &= all(isinstance(value, int) and value >= 0 for value in counts)
    fits &= all(value is None or isinstance(value, str) for value in digests)
    fits &= cursor.steps is None or isinstance(cursor.steps, int)
    if not fits or not 0 <= cursor.real_s < float("inf"):
        raise RunFolderError(f"{unit.checkpoint}: is intact, but not the checkpoint of a unit")
    return cursor


_COUNTS = (
    "steps_done", "items_done", "records_bytes", "timings_bytes", "attempts", "vanished", "memory_kills", "saves",
)  # fmt: skip


def has_begun(folder: RunFolder, path: str) -> bool:
    """Whether the unit at ``path`` has a checkpoint; a kill between two renames leaves only the previous one."""
    newest = folder.path / path / CHECKPOINT
    return file_operations.is_there(newest) or file_operations.is_there(checkpoint.previous_of(newest))


def is_done(folder: RunFolder, path: str, declared: Mapping[str, Any]) -> bool:
    """Whether the unit at ``path`` is finished; creates nothing if it never started."""
    return has_begun(folder, path) and load(folder.unit(path), declared)[0].done


def progress_of(folder: RunFolder, path: str, declared: Mapping[str, Any] | None = None) -> str:
    """``to do``, ``12 done`` or ``done``, for a dry run; only reads.

    Raises:
        FingerprintError: ``declared`` is given and the unit was made with other settings, so a run would be refused.
        RunFolderError: the unit is finished, but its files were changed.

    """
    place = folder.path / path
    loaded = checkpoint.load(place / CHECKPOINT) if place.is_dir() else None
    if loaded is None:
        return "to do"
    if declared is not None:
        compare(UnitFolder(place), loaded.state.get("declared", {}), declared)
        check_state(place, loaded.state)
    return "done" if loaded.state.get("done") else f"{loaded.state.get('items_done', 0)} done"


def _remark_on_age(unit: UnitFolder, cursor: Cursor) -> str | None:
    """Detect an old checkpoint that was put back: saves are numbered, and it is not newer than the previous one."""
    try:
        before = checkpoint.read(checkpoint.previous_of(unit.checkpoint)).get("saves")
    except checkpoint.DamagedCheckpointError:
        return None
    if cursor.done or not isinstance(before, int) or before < cursor.saves:
        return None
    return (
        f"{unit.checkpoint}: is older than {checkpoint.previous_of(unit.checkpoint).name}; "
        f"continuing from its step {cursor.steps_done}"
    )


def _from_records(unit: UnitFolder, declared: Mapping[str, Any]) -> Cursor:
    """Rebuild a cursor from the journals alone: every step before the last one seen is complete.

    Raises:
        DataError: a line in the middle is damaged; the message has the file and the line.
        FingerprintError: according to ``unit.json``, the records were made with other settings.

    """
    unit_file = _unit_file(unit)
    known, asked = unit_file.get("fingerprint", {}), json.loads(to_json(dict(declared)))
    both = [key for key in asked if key in known]
    compare(unit, {key: known[key] for key in both}, {key: asked[key] for key in both})
    records_bytes, last, ends = 0, -1, {-1: 0}
    if unit.records.exists():
        for number, end, record in read_lines(unit.records, allow_torn=True):
            step = record.get("step", 0)
            if not isinstance(step, int) or step < max(last, 0):
                raise DataError(
                    f"{unit.records}:{number}: 'step' is {printable(str(step))[:40]!r}, which cannot follow the "
                    "previous step; restore the file or run with --fresh"
                )
            if step != last:
                ends[step - 1] = records_bytes
                last = step
            records_bytes = end
    steps = max(last, 0)
    cursor = Cursor(dict(declared), steps_done=steps, records_bytes=ends.get(steps - 1, 0))
    cursor.effective = unit_file.get("effective", {})
    for _, end, line in read_lines(unit.timings, allow_torn=True) if unit.timings.exists() else ():
        if _number(line.get("step", -1)) >= steps:
            break
        cursor.timings_bytes = end
        cursor.real_s += max(_number(line.get("real_s")), 0.0)
        cursor.items_done += max(int(_number(line.get("items"))), 0)
        cursor.attempts = max(cursor.attempts, int(_number(line.get("attempt"))))
    return cursor


def _number(value: Any) -> float:
    """A measured value from a line that somebody may have edited; 0 if it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if -1e15 < value < 1e15 else 0.0


def _unit_file(unit: UnitFolder) -> dict[str, dict[str, Any]]:
    """The settings in ``unit.json``; empty if it cannot be read."""
    with contextlib.suppress(DataError, KeyError, TypeError, ValueError):
        found = read_object(unit.path / UNIT_FILE)
        return {key: dict(found[key]) for key in ("fingerprint", "effective")}
    return {}


def rewind(unit: UnitFolder, cursor: Cursor, step: int, *, forget_effective: bool = False) -> None:
    """Rewind a unit to before ``step``, so that this and all later steps run again; the journals are cut when it opens.

    The time used so far still counts. With ``forget_effective``, the loaded model may differ from now on.

    Raises:
        RunFolderError: the journals were changed.

    """
    Journal(unit.records, cursor.records_bytes, cursor.records_sha256).close()
    Journal(unit.timings, cursor.timings_bytes, cursor.timings_sha256).close()
    step = min(step, cursor.steps_done)
    cursor.records_bytes = _end_before(unit.records, step, cursor.records_bytes)
    cursor.timings_bytes = _end_before(unit.timings, step, cursor.timings_bytes)
    cursor.records_sha256 = _digest(unit.records, cursor.records_bytes)
    cursor.timings_sha256 = _digest(unit.timings, cursor.timings_bytes)
    cursor.items_done = sum(
        int(_number(line.get("items")))
        for _, end, line in (read_lines(unit.timings, allow_torn=True) if cursor.timings_bytes else ())
        if end <= cursor.timings_bytes
    )
    cursor.steps_done, cursor.done, cursor.running = step, False, None
    cursor.effective = {} if forget_effective else cursor.effective
    cursor.saves += 1
    checkpoint.save(unit.checkpoint, dict(vars(cursor)))


def _digest(path: Path, size: int) -> str:
    return hashlib.sha256(file_operations.read_whole(path)[:size]).hexdigest()


def _end_before(path: Path, step: int, size: int) -> int:
    """Length of the lines of steps before ``step`` in the first ``size`` bytes of a journal."""
    before = 0
    for _, end, line in read_lines(path, allow_torn=True) if size else ():
        if end > size or _number(line.get("step", -1)) >= step:
            break
        before = end
    return before
