"""The mtbench job from a manifest to a summary and to FastChat's files."""

from pathlib import Path

import click

from llmjobs.jobs.mtbench_job import MTBenchJob
from llmjobs.jobs.mtbench_plan import plan, render_plan
from llmjobs.jobs.mtbench_retry import what_failed
from llmjobs.jobs.mtbench_summary import collect, summarize
from llmjobs.jobs.mtbench_table import render_summary, shower
from llmjobs.jobs.mtbench_tasks import FOLDER, Bench, with_limit
from llmjobs.jobs.study import open_run, tell_end, write_summary
from llmjobs.jobs.where import place
from llmjobs.manifest import Manifest
from llmjobs.models.device import available
from llmjobs.mtbench.fastchat import answer_lines, pair_lines, single_lines
from llmjobs.runfolder.folder import ERROR_FILE, RunFolder
from llmjobs.runner.run import Outcome

__all__ = ["dry_run", "run", "with_limit"]


def run(study: Manifest, results: Path, *, fresh: bool = False, show: bool = False, ray: str | None = None) -> Outcome:
    """Run (or go on with) the mtbench job of ``study`` below ``results``, on ``ray`` if given; prints the summary.

    Raises:
        LlmjobsError: one line; nothing that was saved is lost.

    """
    with place(ray) as there, open_run(study, results, fresh=fresh, devices=available()) as folder:
        job = MTBenchJob(study, folder)
        models = {m.name: m for m in study.models} | {f"judge {judge.name}": judge for judge in job.section.judges}
        outcome = there.run(job, folder, models, job.section.threads, shower(click.echo) if show else None)
        if job.bench is not None:
            note_failed_calls(folder, job.bench, outcome)
            part = summarize(folder, job.bench, outcome, job.spending)
            write_summary(folder, study, job.name, part)
            write_fastchat(folder, job.bench)
            click.echo(render_summary(part))
        tell_end(folder, outcome)
    return outcome


def note_failed_calls(folder: RunFolder, bench: Bench, outcome: Outcome) -> None:
    """Count units with failed calls as failed: the reason is printed and kept, the exit code is not 0."""
    for path, line in what_failed(folder, bench).items():
        if path not in outcome.failed:
            outcome.failed[path] = line
            RunFolder(folder.path / path).write_json(ERROR_FILE, {"unit": path, "error": line})


def dry_run(study: Manifest, results: Path) -> str:
    """Say what would run, what is done already, and what it could cost; loads no model and writes nothing."""
    return render_plan(study, plan(study, RunFolder(results / study.name)))


def write_fastchat(folder: RunFolder, bench: Bench) -> None:
    """Write answers and judgments in FastChat's form below ``mtbench/fastchat``."""
    found = collect(folder, bench)
    files = {f"model_answer/{name}.jsonl": answer_lines(name, records) for name, records in found.answers.items()}
    writers = {"single": single_lines, "pairwise": pair_lines}
    for judge in bench.section.judges:
        for mode in bench.section.modes:
            tasks = [task for task in bench.judges if task.judge is judge and task.mode == mode]
            records = [record for task in tasks for record in found.judgments[task.path]]
            name = f"model_judgment/{judge.name}_{'single' if mode == 'single' else 'pair'}.jsonl"
            files[name] = writers[mode](records)
    for name, data in files.items():
        if data:
            folder.write_bytes(f"{FOLDER}/fastchat/{name}", data)
