"""What every job does around its units: the run folder, the lock, the manifest, the environment, the summary."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from llmjobs.environment import describe_machine
from llmjobs.jobs.run_date import run_date
from llmjobs.manifest import Manifest, dump_manifest
from llmjobs.progress_bar import in_notebook
from llmjobs.runfolder import leases
from llmjobs.runfolder.folder import RunFolder, read_object, sweep
from llmjobs.runfolder.lock import exclusive
from llmjobs.runner.run import Outcome

log = logging.getLogger(__name__)
MANIFEST_FILE, ENVIRONMENT_FILE, SUMMARY_FILE = "manifest.yaml", "environment.json", "summary.json"


@contextmanager
def open_run(study: Manifest, results: Path, *, fresh: bool, devices: list[str] | None = None) -> Iterator[RunFolder]:
    """Lock the run's folder and write what the run is made of.

    Raises:
        LockedError: another process works in it.
        RunFolderError: it cannot be written.
        FingerprintError: the manifest's date is not the one that the run began with.

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
    """The machine of the first attempt, and any other one that a later attempt ran on."""
    now = describe_machine() | ({"devices": devices} if devices else {})
    if first := read_object(folder.path / ENVIRONMENT_FILE):
        others = first.pop("later_attempts", [])
        others = others if isinstance(others, list) else []
        if now != first and now not in others:
            others.append(now)
        now = first | ({"later_attempts": others} if others else {})
    folder.write_json(ENVIRONMENT_FILE, now)


def tell_end(folder: RunFolder, outcome: Outcome) -> None:
    """Say on standard error whether a signal ended the job, and where the results are."""
    if outcome.stopped_by:
        print(f"Stopped by {outcome.stopped_by}. Progress is saved; run the same command to resume.", file=sys.stderr)
    took = "" if in_notebook() else f" (the command took {_since_start()}, imports and preparation included)"
    print(f"results: {folder.path}{took}", file=sys.stderr)


def _since_start() -> str:
    """How long this process has run: what the shell's ``time`` calls real."""
    took_s = max(time.time() - psutil.Process().create_time(), 0.0)
    minutes, seconds = divmod(round(took_s), 60)
    return f"{minutes}:{seconds:02d}" if minutes else f"{took_s:.1f} s"


def write_summary(folder: RunFolder, study: Manifest, job: str, part: Mapping[str, Any]) -> None:
    """Put a job's part into ``summary.json`` and leave the others as they are."""
    whole = read_object(folder.path / SUMMARY_FILE)
    folder.write_json(
        SUMMARY_FILE, {"run": study.name, **{k: v for k, v in whole.items() if k != "run"}, job: dict(part)}
    )
