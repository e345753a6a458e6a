"""The converse job from a manifest to a summary."""

from pathlib import Path

import click

from llmjobs.jobs.converse_job import ConverseJob
from llmjobs.jobs.converse_summary import summarize
from llmjobs.jobs.converse_table import render_summary, shower
from llmjobs.jobs.converse_tasks import make_tasks, with_limit
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
    """Run (or go on with) the converse job of ``study`` below ``results``, on ``ray`` if given; prints the summary.

    Raises:
        LlmjobsError: one line; nothing that was saved is lost.

    """
    with place(ray) as there, open_run(study, results, fresh=fresh, devices=available()) as folder:
        job = ConverseJob(study, folder)
        models = {m.name: m for m in study.models}
        outcome = there.run(job, folder, models, job.section.threads, shower(click.echo) if show else None)
        part = summarize(folder, list(job.tasks.values()), outcome)
        write_summary(folder, study, job.name, part)
        click.echo(render_summary(part))
        tell_end(folder, outcome)
    return outcome


def dry_run(study: Manifest, results: Path) -> str:
    """Say what would run and what is done already; loads no model and writes nothing."""
    folder = RunFolder(results / study.name)
    run_date(study, folder, writes=False)
    lines = []
    for task in make_tasks(study, Revisions.of(folder, writes=False)):
        state = task.error or progress_of(folder, task.path, task.unit().declared)
        lines.append(f"{task.model.name}  {task.set_name}  {task.memory}  {task.unit().size} turns  {state}")
    return "\n".join(lines)
