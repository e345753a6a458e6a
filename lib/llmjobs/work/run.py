"""Run the units of a job: skip finished units, resume interrupted ones, report failures."""

import contextlib
import logging
import math
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil

from llmjobs import file_operations
from llmjobs.environment import describe_machine
from llmjobs.errors import FingerprintError, LlmjobsError, RunFolderError, plain_reason
from llmjobs.manifest import Manifest, dump_manifest
from llmjobs.progress_bar import Progress, in_notebook
from llmjobs.work import leases, unit_progress
from llmjobs.work.folder import ERROR_FILE, UNIT_FILE, RunFolder, UnitFolder, read_object, run_date, sweep
from llmjobs.work.integrity import check_state
from llmjobs.work.journal import read_lines
from llmjobs.work.lock import exclusive
from llmjobs.work.outcome import Outcome
from llmjobs.work.signals import StopRequestedError, StopSwitch, stop_switch
from llmjobs.work.unit_progress import Cursor
from llmjobs.work.units import Job, Step, TurnsJob, Unit, compare, steps_through
from llmjobs.work.when_to_save import Writer

# The loop over a job's units.

log = logging.getLogger(__name__)
OnRecords = Callable[[Unit, Sequence[Any]], None]
"""Takes a unit and records of its job's own kind."""
MakeProgress = Callable[[str, int, int], Progress]


def run_job(
    job: Job, folder: RunFolder, on_records: OnRecords | None = None, make_progress: MakeProgress = Progress
) -> Outcome:
    """Run every unit of ``job`` that is not done; ``on_records`` gets each step's records, also of earlier attempts.

    Raises:
        FingerprintError: a unit on disk was made with other settings (all are compared before the first one runs).
        RunFolderError: the folder cannot be written; saved results stay intact.

    """
    outcome = Outcome()
    try:
        with stop_switch() as switch:
            units = job.units()
            outcome.units, outcome.knows_units = len(units), True
            starts = [load_start(folder, unit) for unit in units]
            done = items_done(units, starts)
            with contextlib.closing(make_progress(job.name, sum(unit.size for unit in units), done)) as progress:
                loop = UnitLoop(job, switch, progress, outcome, on_records)
                if isinstance(job, TurnsJob):
                    progress.at_most = job.may_stop_early
                    by_path = {unit.path: start for unit, start in zip(units, starts, strict=True)}
                    if job.may_stop_early:  # a unit that needs no turn is shown too
                        for unit in units:
                            loop.replay(unit, by_path[unit.path])
                    for turn in job.turns(units):
                        path = turn.unit.path
                        if path not in by_path:  # it has had a turn to its end
                            continue
                        start = by_path.pop(path) if turn.through is None else by_path[path]
                        loop.unit(turn.unit, start, turn.through)
                    return outcome
                waiting = deque(starts)
                del starts
                for unit in units:
                    loop.unit(unit, waiting.popleft())  # so that the cursors of finished units are freed
    except StopRequestedError as stop:
        outcome.stopped_by = str(stop)
    finally:
        job.close()
    return outcome


@dataclass
class Start:
    """The state of a unit when the job starts."""

    folder: UnitFolder
    cursor: Cursor
    killed_for_memory: bool
    seen: bool = False
    """It has had a turn in this process."""
    opened: bool = False
    """It was opened in this process."""
    replayed: bool = False
    """The records of earlier attempts were passed on."""


def load_start(folder: RunFolder, unit: Unit) -> Start:
    """A unit's folder and cursor.

    Raises:
        FingerprintError: it was made with other settings.
        RunFolderError: it is finished, but its records were changed.

    """
    unit_folder = folder.unit(unit.path)
    cursor, remark = unit_progress.load(unit_folder, unit.declared)
    if remark:
        log.warning("%s", remark)
    if cursor.done:
        check_state(unit_folder.path, vars(cursor))
    return Start(unit_folder, cursor, cursor.count_unseen_end())


def items_done(units: Sequence[Unit], starts: Sequence[Start]) -> int:
    """How many items earlier attempts finished."""
    cursors_of = [(unit, start.cursor) for unit, start in zip(units, starts, strict=True)]
    return sum(unit.size if cursor.done else cursor.items_done for unit, cursor in cursors_of)


@dataclass
class UnitLoop:
    """Runs the units of one job in this process."""

    job: Job
    switch: StopSwitch
    progress: Progress
    outcome: Outcome
    on_records: OnRecords | None

    def unit(self, unit: Unit, start: Start, through: int | None = None) -> None:
        """Run one unit, to the end of block ``through`` if given; if it fails, record that and go on with the job."""
        self.switch.check()
        folder, error_file, cursor = start.folder, start.folder.path / ERROR_FILE, start.cursor
        try:
            before, first = cursor.done, not start.seen
            start.seen = True
            self.replay(unit, start)
            until = steps_through(cursor.effective, through)
            if not cursor.done and (until is None or cursor.steps_done < until):
                self.progress.unit(unit.path)
                self._steps(unit, start, through)
            with file_operations.clear_errors(error_file):
                error_file.unlink(missing_ok=True)
            self.outcome.done += cursor.done and (first or not before)
        except (FingerprintError, RunFolderError, BrokenPipeError):
            raise  # a broken pipe: nobody reads what --show prints any more; the unit did not fail
        except Exception as error:
            log.debug("%s", traceback.format_exc())
            line = one_line(error)
            known = line in self.outcome.failed.values()
            self.outcome.failed[unit.path] = line
            RunFolder(folder.path).write_json(ERROR_FILE, {"unit": unit.path, "error": line})
            if not known:  # a model that cannot be loaded fails in every unit; print the line once
                self.progress.say(f"failed: {unit.path}: {line}")

    def _steps(self, unit: Unit, start: Start, through: int | None) -> None:
        folder, cursor = start.folder, start.cursor
        killed, start.killed_for_memory = start.killed_for_memory, False
        if killed:
            log.warning("%s: the last attempt ran out of memory, and the kernel killed it", unit.path)
        with (
            contextlib.closing(Writer(folder, cursor)) as writer,
            _in_sight(writer),
            self.job.open(unit, cursor.saved(killed_for_memory=killed)) as work,
        ):
            if cursor.effective:
                compare(folder, cursor.effective, work.effective)
            if cursor.steps is not None and cursor.steps_done:
                compare(folder, {"steps": cursor.steps}, {"steps": work.steps})
            fingerprint = {**unit.declared, **work.effective}
            unit_file = {"unit": unit.path, "fingerprint": fingerprint, "effective": dict(work.effective)}
            RunFolder(folder.path).write_json(UNIT_FILE, unit_file)
            writer.opened(work, new_attempt=not start.opened)
            start.opened = True
            until = steps_through(work.effective, through)
            for index in range(cursor.steps_done, work.steps if until is None else until):
                self.switch.check()
                with self.switch.step():
                    step = work.step(index)
                    writer.step(index, step, work.state(), last=index + 1 == work.steps)
                self._tell(unit, step)
            if not work.steps:
                writer.finish()
            elif not cursor.done:
                writer.pause()

    def replay(self, unit: Unit, start: Start) -> None:
        """Pass the records of earlier attempts to ``on_records``, step by step, once."""
        if self.on_records is None or not start.cursor.records_bytes or start.replayed:
            return
        start.replayed = True
        saved = ((end, record) for _, end, record in read_lines(start.folder.records, allow_torn=True))
        records = (record for end, record in saved if end <= start.cursor.records_bytes)
        for _, step in groupby(records, lambda record: record.get("step")):
            self.on_records(unit, list(step))

    def _tell(self, unit: Unit, step: Step) -> None:
        if self.on_records:
            self.on_records(unit, step.records)
        self.progress.advance(int(step.timing.get("items", len(step.records))), unit.path)


@contextlib.contextmanager
def _in_sight(writer: Writer) -> Iterator[None]:
    """Note in the checkpoint that a signal or an error ended the attempt, so that it does not count as a kill.

    If there is no time left, nothing is written.
    """
    try:
        yield
    except BaseException as error:
        if not (isinstance(error, StopRequestedError) and error.at_once):
            with contextlib.suppress(RunFolderError):
                writer.note_end()
        raise


def one_line(error: BaseException) -> str:
    """The line that a person sees for an exception."""
    if isinstance(error, LlmjobsError):
        return str(error)
    return f"unexpected error: {plain_reason(error, 500)} (llmjobs -v shows the traceback)"


# What every job does before and after its units: run folder, lock, manifest, environment, summary.

MANIFEST_FILE, ENVIRONMENT_FILE, SUMMARY_FILE = "manifest.yaml", "environment.json", "summary.json"


@contextmanager
def open_run(study: Manifest, results: Path, *, fresh: bool, devices: list[str] | None = None) -> Iterator[RunFolder]:
    """Lock the run's folder and write its manifest and environment.

    Raises:
        LockedError: another process works in it.
        RunFolderError: it cannot be written.
        FingerprintError: the manifest's date differs from the one that the run started with.

    """
    folder_path = results / study.name
    with exclusive(folder_path):
        folder = RunFolder.create(results, study.name)
        if fresh and (old := folder.move_aside()):
            print(f"--fresh: the old run is kept as {old}", file=sys.stderr)
        sweep(folder)
        leases.collect(folder)
        dated = study.model_copy(update={"date": run_date(study, folder)})
        folder.write_text(MANIFEST_FILE, dump_manifest(dated))
        _write_environment(folder, devices)
        yield folder


def _write_environment(folder: RunFolder, devices: list[str] | None) -> None:
    """Record the machine of the first attempt, and other machines of later attempts."""
    now = describe_machine() | ({"devices": devices} if devices else {})
    if first := read_object(folder.path / ENVIRONMENT_FILE):
        others = first.pop("later_attempts", [])
        others = others if isinstance(others, list) else []
        if now != first and now not in others:
            others.append(now)
        now = first | ({"later_attempts": others} if others else {})
    folder.write_json(ENVIRONMENT_FILE, now)


def report_end(folder: RunFolder, outcome: Outcome) -> None:
    """Print to standard error whether a signal ended the job, and where the results are."""
    if outcome.stopped_by:
        print(f"Stopped by {outcome.stopped_by}. Progress is saved; run the same command to resume.", file=sys.stderr)
    took = "" if in_notebook() else f" (total time {_since_start()}, including imports and preparation)"
    print(f"results: {folder.path}{took}", file=sys.stderr)


def _since_start() -> str:
    """How long this process has run: ``real`` of the shell's ``time``."""
    took_s = max(time.time() - psutil.Process().create_time(), 0.0)
    minutes, seconds = divmod(round(took_s), 60)
    return f"{minutes}:{seconds:02d}" if minutes else f"{took_s:.1f} s"


def write_summary(folder: RunFolder, study: Manifest, job: str, part: Mapping[str, Any]) -> None:
    """Replace a job's part of ``summary.json`` and keep the other parts.

    Values that cannot be computed from so few records (``nan``) become null, because JSON has no NaN.
    """
    whole = read_object(folder.path / SUMMARY_FILE)
    folder.write_json(
        SUMMARY_FILE, {"run": study.name, **{k: v for k, v in whole.items() if k != "run"}, job: _without_nan(part)}
    )


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
