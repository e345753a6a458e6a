"""The Python interface, for notebooks: run a study and look at its results, with the same runner as the command line.

    import llmjobs

    results = llmjobs.run("demo")               # path of a manifest, or the name of a bundled one
    results                                     # in a notebook: tables and figures
    results.records("eval")                     # a pandas table, one row per question
    results.report()                            # the path of the PDF
    llmjobs.Results("results/demo")             # the same later, or for a folder from another machine

You can interrupt :func:`run` at any time (Ctrl-C, a notebook's stop button, a killed kernel); the same call resumes it.
"""

import base64
import html
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmjobs import file_operations
from llmjobs.errors import DataError, ManifestError, StoppedError
from llmjobs.exit_codes import EXIT_RESUMABLE
from llmjobs.extensions import JOBS
from llmjobs.manifest import Manifest, load_manifest
from llmjobs.progress_bar import import_quietly, in_notebook
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
    """Run or resume every section of a manifest, write the report, and return the results.

    ``results`` is the folder that contains the runs; default: ``LLMJOBS_RESULTS``, otherwise ``results``.
    ``overrides`` are ``path=value`` strings as for ``--set``; ``ray`` is the address of a cluster as for ``--ray``. A
    unit that fails does not raise; it is listed in :attr:`Results.failed`. You can call this in any thread. In the main
    thread it handles SIGINT, SIGTERM and SIGHUP while it runs, and restores their handlers afterwards.

    Raises:
        StoppedError: interrupted; the current batch was finished and saved, and the same call resumes.
        LlmjobsError: the manifest is not valid, or the folder cannot be used; the message is one line.

    """
    if in_notebook():
        import_quietly()
    if isinstance(manifest, Manifest) and overrides:
        raise ManifestError("overrides apply to a manifest file; pass them to load_manifest instead")
    study = manifest if isinstance(manifest, Manifest) else load_manifest(manifest, overrides)
    parent = Path(results or os.environ.get("LLMJOBS_RESULTS") or "results")
    try:
        from llmjobs.run_study import run_all

        code = run_all(study, parent, fresh=fresh, ray=ray)
        if code == EXIT_RESUMABLE:
            raise KeyboardInterrupt
        found = Results(parent / study.name)
        if report:
            _try_report(found)
    except KeyboardInterrupt:
        raise StoppedError(f"{parent / study.name}: stopped. Progress is saved; call run again to resume") from None
    return found


def _try_report(found: "Results") -> None:
    """Write the report if there is something to report; if all units failed, the results list them."""
    try:
        found.report()
    except DataError as error:
        log.warning("no report: %s", error)


class Results:
    """A run folder, opened for reading. It may still be running, or come from another machine."""

    def __init__(self, folder: str | Path) -> None:
        """Open ``folder``, for example ``results/small``.

        Raises:
            DataError: it does not contain a run.

        """
        self.folder = Path(folder)
        if not (self.folder / "manifest.yaml").is_file():
            raise DataError(
                f"{self.folder}: contains no run (no manifest.yaml); give a folder inside the results folder"
            )

    @property
    def summary(self) -> dict[str, Any]:
        """The run's ``summary.json``; empty until the first job has ended."""
        return read_object(self.folder / "summary.json")

    @property
    def jobs(self) -> list[str]:
        """The jobs that have records, among ``eval``, ``matrix``, ``converse``, ``mtbench``."""
        return [job for job in JOBS if self._record_files(job)]

    @property
    def failed(self) -> dict[str, str]:
        """Unit → the line with the reason for its failure."""
        parts = [part for part in self.summary.values() if isinstance(part, dict)]
        return {one["unit"]: one["error"] for part in parts for one in part.get("units_failed", ())}

    def records(self, job: str = "eval") -> "pd.DataFrame":
        """Every record of a job, one row per record; ``unit`` is the folder of the record.

        ``job`` can name a part: ``mtbench/answers``, ``mtbench/judgments``, ``eval/MODEL``. An incomplete last line of
        a running job is left out.

        Raises:
            DataError: the run has no such records, or a line is damaged.
            RunFolderError: records were changed from outside.

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
        """The table that the terminal shows for a job: one row per model and benchmark, cell, memory, or agent.

        Accuracies are from 0 to 1 with their interval, times in seconds, sizes in bytes.

        Raises:
            DataError: no such job.

        """
        import pandas as pd

        if job not in ROWS:
            raise DataError(f"{job!r} is not a job; the jobs are {', '.join(ROWS)}")
        part = self.summary.get(job)
        return pd.DataFrame(list(ROWS[job](part if isinstance(part, dict) else {})))

    def accuracy(self) -> "pd.DataFrame":
        """:meth:`table` of ``eval``: accuracy, its interval, questions and time."""
        return self.table("eval")

    def report(self, output: str | Path | None = None) -> Path:
        """Write the PDF (``report.pdf`` in the run's folder) with figures, tables and notes beside it; return its path.

        Raises:
            DataError: there is nothing to report yet.

        """
        from llmjobs.make_report import make_report

        return make_report([self.folder], Path(output) if output else self.folder / "report.pdf").pdf

    def figures(self) -> list[Path]:
        """The figures of the run and its report, as PNG files."""
        return sorted((self.folder / "figures").glob("*.png"))

    def _record_files(self, job: str) -> list[Path]:
        parts = Path(job).parts
        inside = bool(parts) and parts[0] in JOBS and ".." not in parts
        files = sorted((self.folder / job).rglob(RECORDS)) if inside else []
        return [path for path in files if path.stat().st_size or not path.is_file()]

    def _repr_html_(self) -> str:
        """The notebook view: tables of the jobs, failures, figures. Text from models and files is escaped."""
        tables = {job: self.table(job) for job in ROWS if job in self.summary}
        parts = [f"<h4>{html.escape(self.folder.name)}</h4>"]
        parts += [f"<h5>{job}</h5>{_html_table(frame)}" for job, frame in tables.items() if len(frame)]
        parts += [f"<p>failed: {html.escape(f'{unit}: {line}')}</p>" for unit, line in self.failed.items()]
        if not tables:
            parts.append("<p>No job of this run has finished yet.</p>")
        return "".join(parts + [_image(path) for path in self.figures()])

    def __repr__(self) -> str:
        """Show the folder."""
        return f"Results({str(self.folder)!r})"


def _html_table(frame: "pd.DataFrame") -> str:
    shown = frame.astype(object).where(frame.notna(), "–")
    text = shown.to_html(
        index=False, escape=True, max_rows=MOST_ROWS, border=0, float_format=lambda value: f"{value:,.3f}"
    )
    return str(text)


def _image(path: Path) -> str:
    data = base64.b64encode(file_operations.read_whole(path)).decode()
    return f'<img alt="{html.escape(path.stem)}" style="max-width:48em" src="data:image/png;base64,{data}">'


# The summaries of a run as flat rows, one per line of the table on the terminal.

Row = dict[str, Any]
Part = Mapping[str, Any]


def _eval_rows(part: Part) -> Iterator[Row]:
    for model in part.get("models", ()):
        times = {key: model[key] for key in ("questions_per_s", "real_s", "gpu_s")}
        for found in model["benchmarks"]:
            figures = {key: found[key] for key in ("benchmark", "n", "acc", "low", "high", "macro_acc")}
            yield {"model": model["model"], **figures, **times}


MEDIANS = (
    "load_s", "real_s", "user_s", "gpu_s", "ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s", "questions_per_s",
    "weight_bytes", "needed_bytes", "peak_rss_bytes", "peak_device_bytes",
)  # fmt: skip


def _matrix_rows(part: Part) -> Iterator[Row]:
    for cell in part.get("cells", ()):
        measures, accuracy = cell.get("measures") or {}, cell.get("accuracy") or {}
        yield {
            **{key: cell[key] for key in ("model", "row", "status", "reason")},
            **{key: accuracy.get(key) for key in ("n", "acc", "low", "high")},
            **{key: (measures.get(key) or {}).get("median") for key in MEDIANS},
        }


def _converse_rows(part: Part) -> Iterator[Row]:
    figures = ("strategy", "history", "context", "n", "acc", "low", "high", "errors", "tokens_sent", "ttft_s")
    for group in part.get("models", ()):
        for memory in group["memories"]:
            yield {"model": group["model"], "set": group["set"], **{key: memory[key] for key in figures}}


def _mtbench_rows(part: Part) -> Iterator[Row]:
    for found in part.get("scores", ()):
        yield {key: found[key] for key in ("judge", "model", "score", "low", "high", "n", "unread")}


ROWS: dict[str, Callable[[Part], Iterator[Row]]] = {
    "eval": _eval_rows,
    "matrix": _matrix_rows,
    "converse": _converse_rows,
    "mtbench": _mtbench_rows,
}
"""Job → its rows, in the order in which a manifest's jobs run."""
