"""A run's folder, and what is decided once for the whole run: the commit of each name on the hub, and the date.

results/RUN/
  manifest.yaml  environment.json  summary.json  revisions.json  date.json
  docs/BENCHMARK.SUBJECT.jsonl
  JOB/…/UNIT/{records.jsonl, timings.jsonl, checkpoint.pkl, unit.json, error.json}

A resume, online or offline, uses the same commits. Chat templates print the same date whenever a step runs.
"""

import contextlib
import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmjobs import file_operations
from llmjobs.engines.locate import Located
from llmjobs.engines.registry import locate
from llmjobs.errors import DataError, FingerprintError, LlmjobsError, RunFolderError
from llmjobs.manifest import Manifest, ModelSpec

RECORDS, TIMINGS, CHECKPOINT = "records.jsonl", "timings.jsonl", "checkpoint.pkl"
UNIT_FILE, ERROR_FILE = "unit.json", "error.json"


@dataclass(frozen=True)
class UnitFolder:
    """The files of one unit."""

    path: Path

    @property
    def records(self) -> Path:
        """Deterministic lines: predictions."""
        return self.path / RECORDS

    @property
    def timings(self) -> Path:
        """Measured lines: time and memory of each step."""
        return self.path / TIMINGS

    @property
    def checkpoint(self) -> Path:
        """The checkpoint, which stores the cursor."""
        return self.path / CHECKPOINT


@dataclass(frozen=True)
class RunFolder:
    """One run's folder below the results."""

    path: Path

    @classmethod
    def create(cls, results: Path, name: str) -> "RunFolder":
        """Create (or find) ``results/name``.

        Raises:
            RunFolderError: ``name`` is not a folder name, it cannot be created, or a link leads out of the results.

        """
        if "\0" in name or Path(name).name != name:
            raise RunFolderError(
                f"{name[:60]!r} is not a valid run name; give the name of a single folder inside {results}"
            )
        path = results / name
        with file_operations.clear_errors(path):
            if results.resolve() not in path.resolve().parents:
                raise RunFolderError(
                    f"{path}: leads out of {results} through a link; remove the link or choose another name"
                )
            file_operations.make_folder(path)
        return cls(path)

    def unit(self, unit_path: str) -> UnitFolder:
        """The folder of a unit such as ``eval/llama/mmlu.astronomy``; created if missing.

        Raises:
            RunFolderError: a link in it leads out of the run.

        """
        path = self.path / unit_path
        with file_operations.clear_errors(path):
            if self.path.resolve() not in path.resolve().parents:
                raise RunFolderError(f"{path}: leads out of the run through a link; remove the link")
            file_operations.make_folder(path)
        return UnitFolder(path)

    def write_json(self, relative: str, value: Any) -> None:
        """Replace a JSON file of the run, readable and with keys in the order given."""
        self.write_bytes(relative, to_json(value))

    def write_text(self, relative: str, text: str) -> None:
        """Replace a text file of the run."""
        self.write_bytes(relative, text.encode("utf-8", "replace"))

    def write_bytes(self, relative: str, data: bytes) -> None:
        """Replace a file of the run.

        Raises:
            RunFolderError: it would not be inside of the run, or cannot be written.

        """
        path = self.path / relative
        with file_operations.clear_errors(path):
            own, parent = self.path.resolve(), path.parent.resolve()
            if own not in (parent, *parent.parents):
                raise RunFolderError(f"{path}: leads out of the run through a link or '..'; remove the link")
            file_operations.make_folder(path.parent)
        file_operations.write_whole(path, data)

    def move_aside(self) -> Path | None:
        """Rename the folder to ``NAME.1``, ``NAME.2``, … so that a fresh run loses nothing.

        Returns the new path, or None if there was nothing to keep.
        """
        if not any(self.path.iterdir()):
            return None
        number = 1
        while (target := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        with file_operations.clear_errors(self.path):
            file_operations.rename(self.path, target)
            file_operations.make_folder(self.path)
        return target


def sweep(folder: RunFolder) -> None:
    """Remove temporary files of writes that a kill interrupted; only under the run's lock, when nobody else writes."""
    for path in folder.path.rglob("*.tmp"):
        if Path(path.stem).suffix in _SWEPT and "figures" not in path.parts:
            with contextlib.suppress(OSError):
                path.unlink()


_SWEPT = (".json", ".jsonl", ".pkl", ".yaml")
"""Kinds of files that jobs write. Temporary files of a report, which may be running now, are kept."""


def to_json(value: Any) -> bytes:
    """Indented JSON with a final newline."""
    return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False).encode("utf-8", "replace") + b"\n"


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        DataError: missing or damaged.

    """
    try:
        return json.loads(file_operations.read_whole(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not valid JSON; restore it, or delete it and run the same command again") from None


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run that contains an object; empty if the file is missing.

    Raises:
        DataError: damaged, or anything but an object.

    """
    if not file_operations.is_there(path):
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise DataError(
            f"{path}: contains {_kind(found)} instead of an object; restore it, or delete it and run the same command "
            "again"
        )
    return found


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


REVISIONS_FILE = "revisions.json"


@dataclass
class Revisions:
    """The commit of each name when the run first asked for it."""

    folder: RunFolder
    known: dict[str, str]
    writes: bool = True
    """Off for a dry run, which leaves no trace."""

    @classmethod
    def of(cls, folder: RunFolder, *, writes: bool = True) -> "Revisions":
        """Read a run's revisions; empty for a new run."""
        found = read_object(folder.path / REVISIONS_FILE)
        return cls(folder, {name: commit for name, commit in found.items() if isinstance(commit, str)}, writes)

    def known_commit(self, kind: str, name: str, wanted: str | None) -> str | None:
        """The commit that this run recorded for ``name`` at ``wanted``; None if there is none."""
        return self.known.get(_key(kind, name, wanted))

    def record(self, kind: str, name: str, wanted: str | None, commit: str | None) -> None:
        """Store the commit of a name; None (a local folder) is not stored."""
        if commit is not None and self.known.get(_key(kind, name, wanted)) != commit:
            self.known[_key(kind, name, wanted)] = commit
            if self.writes:
                self.folder.write_json(REVISIONS_FILE, dict(sorted(self.known.items())))

    def locate(self, spec: ModelSpec) -> tuple[Located | None, str | None]:
        """Find a model at the commit that this run uses and store it; or return one line on why it cannot be found."""
        known = {"revision": self.known_commit("model", spec.id, spec.revision)}
        if spec.adapter:
            known["adapter_revision"] = self.known_commit("model", spec.adapter, spec.adapter_revision)
        try:
            located = locate(spec.model_copy(update={name: commit for name, commit in known.items() if commit}))
        except LlmjobsError as error:
            return None, str(error)
        if not located.is_local:
            self.record("model", spec.id, spec.revision, located.revision)
        if spec.adapter and located.adapter and not located.adapter.is_local:
            self.record("model", spec.adapter, spec.adapter_revision, located.adapter.revision)
        return located, None


def _key(kind: str, name: str, wanted: str | None) -> str:
    return f"{kind} {name}@{wanted or 'default'}"


DATE_FILE = "date.json"
BEFORE_DATES = datetime.date(2024, 7, 26)
"""The date that chats wrote in every prompt before runs stored a date; an older run continues with it."""


def run_date(study: Manifest, folder: RunFolder, *, writes: bool = True) -> datetime.date:
    """The date that the run stored; at its first start the manifest's, otherwise today.

    Raises:
        FingerprintError: the manifest has another date than the one that the run started with.

    """
    kept = _kept(folder)
    if kept is None:
        began_before = any((folder.path / job).is_dir() for job in ("converse", "mtbench"))
        kept = study.date or (BEFORE_DATES if began_before else datetime.date.today())  # noqa: DTZ011 - the person's day
        if writes:
            folder.write_json(DATE_FILE, {"date": kept.isoformat()})
    if study.date is not None and study.date != kept:
        raise FingerprintError(
            f"{folder.path.name}: date was {kept.isoformat()} and is now {study.date.isoformat()}, which changes the "
            "prompts; undo the change, give the run another name (--set name=…), or start over with --fresh"
        )
    return kept


def _kept(folder: RunFolder) -> datetime.date | None:
    path = folder.path / DATE_FILE
    if found := read_object(path):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return datetime.date.fromisoformat(found["date"])
        raise FingerprintError(
            f'{path}: does not contain a date; restore {{"date": "YYYY-MM-DD"}}, or start over with --fresh'
        )
    return None
