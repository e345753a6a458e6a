"""Run a study: one of its jobs, from opening the run's folder to its summary, or all of them in order."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import click

from llmjobs.cluster.local_or_cluster import Place, place
from llmjobs.errors import ManifestError
from llmjobs.exit_codes import EXIT_RESUMABLE
from llmjobs.extensions import JOBS, load
from llmjobs.manifest import Manifest, ModelSpec
from llmjobs.work.folder import RunFolder
from llmjobs.work.outcome import Outcome, exit_code_of_all
from llmjobs.work.run import OnRecords, open_run, report_end, write_summary
from llmjobs.work.units import ClusterJob


class StudyJob(ClusterJob, Protocol):
    """A job that :func:`run_study` runs."""

    def models(self) -> Mapping[str, ModelSpec]:
        """What the units of each group load."""

    @property
    def threads(self) -> int | str:
        """Threads of a model on the CPU."""

    def printer(self) -> OnRecords:
        """Print records as they come (``--show``)."""

    def summarize(self, outcome: Outcome) -> tuple[Mapping[str, Any], str]:
        """Return the job's part of ``summary.json``, and the text for the terminal.

        Adds to ``outcome`` what the runner cannot see: questions in error, failed calls.
        """


def run_study(
    make_job: Callable[[Manifest, RunFolder, Place], StudyJob],
    study: Manifest,
    results: Path,
    *,
    fresh: bool = False,
    show: bool = False,
    ray: str | None = None,
    devices: list[str] | None = None,
    whole_nodes: bool = False,
) -> Outcome:
    """Run or resume a job of ``study`` below ``results``, on the cluster ``ray`` if given, and print its summary.

    ``devices`` are recorded in ``environment.json``; ``whole_nodes`` gives each unit a node of the cluster to itself.
    If it is stopped before its units are known, the summary stays as it is.

    Raises:
        LlmjobsError: one line; nothing that was saved is lost.

    """
    with place(ray) as there, open_run(study, results, fresh=fresh, devices=devices) as folder:
        job = make_job(study, folder, there)
        on_records = job.printer() if show else None
        outcome = there.run(job, folder, job.models(), job.threads, on_records, whole_nodes=whole_nodes)
        if outcome.knows_units:
            part, text = job.summarize(outcome)
            write_summary(folder, study, job.name, part)
            click.echo(text)
        report_end(folder, outcome)
    return outcome


# All jobs that a manifest has a section for: ``llmjobs run``.


def wanted(study: Manifest) -> list[str]:
    """The manifest's sections that are jobs, in order.

    Raises:
        ManifestError: it has none.

    """
    found = [name for name in JOBS if getattr(study, name, None) is not None]
    if not found:
        raise ManifestError(f"{study.name}: the manifest has no job; add one of {', '.join(f'{j}:' for j in JOBS)}")
    return found


def run_all(study: Manifest, results: Path, *, fresh: bool = False, ray: str | None = None) -> int:
    """Run each section's job; returns an exit code: 75 stops at once, 3 is returned at the end."""
    codes: list[int] = []
    for name in wanted(study):
        job: Callable[..., Outcome] = load(JOBS[name].module).run
        codes.append(job(study, results, fresh=fresh and not codes, ray=ray).exit_code)
        if codes[-1] == EXIT_RESUMABLE:
            break
    return exit_code_of_all(codes)
