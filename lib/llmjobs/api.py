"""The Python interface, for notebooks: run a study, look at its results. The same runner as the command line.

    import llmjobs

    results = llmjobs.run("demo")               # a manifest's file, or the name of one that comes along
    results                                     # in a notebook: tables and figures
    results.records("eval")                     # one row a question, as a pandas table
    results.report()                            # the PDF's path
    llmjobs.Results("results/demo")             # the same later, or of another machine's folder

Interrupt :func:`run` whenever you like (Ctrl-C, a notebook's stop button, a killed kernel): the same call goes on.
"""

import base64
import html
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmjobs import disk
from llmjobs.errors import EXIT_RESUMABLE, DataError, ManifestError, StoppedError
from llmjobs.extensions import JOBS
from llmjobs.manifest import Manifest, load_manifest
from llmjobs.progress_bar import import_quietly, in_notebook
from llmjobs.result_tables import ROWS, rows_of
from llmjobs.work.folder import RECORDS, read_object
from llmjobs.work.integrity import check_unit
from llmjobs.work.journal import read_records

if TYPE_CHECKING:
    import pandas as pd


log = logging.getLogger(__name__)
MOST_ROWS = 60
"""Rows of a table that a notebook shows; :meth:`Results.table` has all."""


def run(
    manifest: str | Path | Manifest,
    *,
    results: str | Path | None = None,
    overrides: Sequence[str] = (),
    fresh: bool = False,
    report: bool = True,
    ray: str | None = None,
) -> "Results":
    """Run every section of a manifest (or go on with it), write the report, and return the results.

    ``results`` is the folder of all runs: ``LLMJOBS_RESULTS`` or ``results`` where not given. ``overrides`` are
    ``path=value`` strings as for ``--set``; ``ray`` is a cluster's address as for ``--ray``. A unit that fails is in
    :attr:`Results.failed`, not raised. Runs in any thread; in the main thread SIGINT, SIGTERM and SIGHUP are taken
    over while it runs and put back after.

    Raises:
        StoppedError: interrupted; the batch at hand was finished and saved, the same call goes on.
        LlmjobsError: the manifest is not valid or the folder cannot be used; one line.

    """
    if in_notebook():
        import_quietly()
    if isinstance(manifest, Manifest) and overrides:
        raise ManifestError("overrides change a manifest's file; give them to load_manifest")
    study = manifest if isinstance(manifest, Manifest) else load_manifest(manifest, overrides)
    parent = Path(results or os.environ.get("LLMJOBS_RESULTS") or "results")
    try:
        from llmjobs.run_all import run_all

        code = run_all(study, parent, fresh=fresh, ray=ray)
        if code == EXIT_RESUMABLE:
            raise KeyboardInterrupt
        found = Results(parent / study.name)
        if report:
            _try_report(found)
    except KeyboardInterrupt:
        raise StoppedError(
            f"{parent / study.name}: stopped; everything is saved, the same call of run goes on where it was"
        ) from None
    return found


def _try_report(found: "Results") -> None:
    """A run whose units all failed has nothing to report; what failed is in the results."""
    try:
        found.report()
    except DataError as error:
        log.warning("no report: %s", error)


class Results:
    """A run folder, opened for reading; also one that is still running or was made on another machine."""

    def __init__(self, folder: str | Path) -> None:
        """Open ``folder``, for example ``results/small``.

        Raises:
            DataError: there is no run in it.

        """
        self.folder = Path(folder)
        if not (self.folder / "manifest.yaml").is_file():
            raise DataError(f"{self.folder}: holds no run (no manifest.yaml); name a folder below the results")

    @property
    def summary(self) -> dict[str, Any]:
        """The run's ``summary.json``; empty before the first job ended."""
        return read_object(self.folder / "summary.json")

    @property
    def jobs(self) -> list[str]:
        """The jobs that have records: of ``eval``, ``matrix``, ``converse``, ``mtbench``."""
        return [job for job in JOBS if self._record_files(job)]

    @property
    def failed(self) -> dict[str, str]:
        """Unit → the line that says why it failed."""
        parts = [part for part in self.summary.values() if isinstance(part, dict)]
        return {one["unit"]: one["error"] for part in parts for one in part.get("units_failed", ())}

    def records(self, job: str = "eval") -> "pd.DataFrame":
        """Every record of a job, one row a record; ``unit`` is the folder that it lies in.

        ``job`` may name a part: ``mtbench/answers``, ``mtbench/judgments``, ``eval/MODEL``. A torn last line of a
        running job is left out.

        Raises:
            DataError: the run has no such records, or a damaged line.
            RunFolderError: records are not what was saved: they were changed from outside.

        """
        import pandas as pd

        files = self._record_files(job)
        if not files:
            raise DataError(f"{self.folder}: has no records of {job!r}; it has {', '.join(self.jobs) or 'none'}")
        rows = []
        for path in files:
            check_unit(path.parent)
            unit = str(path.parent.relative_to(self.folder))
            rows += [{"unit": unit} | record for record in read_records(path, allow_torn=True)]
        return pd.DataFrame(rows)

    def table(self, job: str = "eval") -> "pd.DataFrame":
        """One row a model and benchmark, cell, memory, or judge and agent: what the terminal shows of a job.

        Accuracies from 0 to 1 with their interval, times in seconds, sizes in bytes.

        Raises:
            DataError: no such job.

        """
        import pandas as pd

        if job not in ROWS:
            raise DataError(f"{job!r} is no job; the jobs are {', '.join(ROWS)}")
        part = self.summary.get(job)
        return pd.DataFrame(rows_of(job, part if isinstance(part, dict) else {}))

    def accuracy(self) -> "pd.DataFrame":
        """:meth:`table` of ``eval``: accuracy, its interval, questions and time."""
        return self.table("eval")

    def report(self, output: str | Path | None = None) -> Path:
        """Write the PDF (``report.pdf`` in the run's folder) with figures, tables and notes beside it; its path.

        Raises:
            DataError: there is nothing to report yet.

        """
        from llmjobs.report_job import make_report

        return make_report([self.folder], Path(output) if output else self.folder / "report.pdf").pdf

    def figures(self) -> list[Path]:
        """The figures that the run and its report drew, as PNG files."""
        return sorted((self.folder / "figures").glob("*.png"))

    def _record_files(self, job: str) -> list[Path]:
        parts = Path(job).parts
        inside = bool(parts) and parts[0] in JOBS and ".." not in parts
        files = sorted((self.folder / job).rglob(RECORDS)) if inside else []
        return [path for path in files if path.stat().st_size or not path.is_file()]

    def _repr_html_(self) -> str:
        """What a notebook shows: the jobs' tables, what failed, the figures. Text of models and files is escaped."""
        tables = {job: self.table(job) for job in ROWS if job in self.summary}
        parts = [f"<h4>{html.escape(self.folder.name)}</h4>"]
        parts += [f"<h5>{job}</h5>{_html_table(frame)}" for job, frame in tables.items() if len(frame)]
        parts += [f"<p>failed: {html.escape(f'{unit}: {line}')}</p>" for unit, line in self.failed.items()]
        if not tables:
            parts.append("<p>No job of this run has ended yet.</p>")
        return "".join(parts + [_image(path) for path in self.figures()])

    def __repr__(self) -> str:
        """Name the folder."""
        return f"Results({str(self.folder)!r})"


def _html_table(frame: "pd.DataFrame") -> str:
    shown = frame.astype(object).where(frame.notna(), "–")
    text = shown.to_html(
        index=False, escape=True, max_rows=MOST_ROWS, border=0, float_format=lambda value: f"{value:,.3f}"
    )
    return str(text)


def _image(path: Path) -> str:
    data = base64.b64encode(disk.read_whole(path)).decode()
    return f'<img alt="{html.escape(path.stem)}" style="max-width:48em" src="data:image/png;base64,{data}">'
