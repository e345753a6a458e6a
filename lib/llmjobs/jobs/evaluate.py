"""The eval job from a manifest to a summary."""

from pathlib import Path

import click

from llmjobs.benchmarks.base import Doc
from llmjobs.jobs.eval_job import EvalJob
from llmjobs.jobs.eval_show import shower
from llmjobs.jobs.eval_summary import summarize
from llmjobs.jobs.eval_table import render_summary
from llmjobs.jobs.eval_tasks import eval_section, make_tasks, with_limit
from llmjobs.jobs.revisions import Revisions
from llmjobs.jobs.run_date import run_date
from llmjobs.jobs.study import open_run, tell_end, write_summary
from llmjobs.jobs.where import place
from llmjobs.manifest import Manifest
from llmjobs.models.device import available
from llmjobs.runfolder.folder import RunFolder
from llmjobs.runner.cursor import progress_of
from llmjobs.runner.run import Outcome

__all__ = ["dry_run", "run", "with_limit"]


def run(study: Manifest, results: Path, *, fresh: bool = False, show: bool = False, ray: str | None = None) -> Outcome:
    """Run (or go on with) the eval job of ``study`` below ``results``, on ``ray`` if given; prints the summary.

    Raises:
        LlmjobsError: one line; nothing that was saved is lost.

    """
    with place(ray) as there, open_run(study, results, fresh=fresh, devices=available()) as folder:
        job = EvalJob(study, folder)
        on_records = shower(lambda path: _docs(job, path), click.echo) if show else None
        outcome = there.run(job, folder, {m.name: m for m in study.models}, job.section.threads, on_records)
        units = [task.unit(job.section.seed) for task in job.tasks.values()]
        part = summarize(folder, units, outcome)
        outcome.in_error = sum(model["errors"] for model in part["models"])
        write_summary(folder, study, job.name, part)
        click.echo(render_summary(part))
        tell_end(folder, outcome)
    return outcome


def dry_run(study: Manifest, results: Path) -> str:
    """Say what would run and what is done already; loads no model and writes nothing.

    Raises:
        FingerprintError: the run was begun with other settings, so that it would be refused.

    """
    folder = RunFolder(results / study.name)
    run_date(study, folder, writes=False)
    lines = []
    seed = eval_section(study).seed
    for task in make_tasks(study, Revisions.of(folder, writes=False)):
        unit = task.unit(seed)
        state = task.error or progress_of(folder, unit.path, unit.declared)
        lines.append(f"{task.model.name}  {task.data.key}  {task.data.count} questions  {state}")
    return "\n".join(lines)


def _docs(job: EvalJob, path: str) -> list[Doc]:
    return job.tasks[path].data.docs
