"""The matrix job from a manifest to a grid."""

import sys
from pathlib import Path

import click

from llmjobs.jobs.matrix_cells import make_cells, matrix_section, shuffled
from llmjobs.jobs.matrix_job import MatrixJob
from llmjobs.jobs.matrix_summary import killed_units, raw_run, summarize
from llmjobs.jobs.matrix_table import render_matrix
from llmjobs.jobs.study import open_run, write_summary
from llmjobs.jobs.where import place
from llmjobs.manifest import Manifest
from llmjobs.measuring.probing import probe_machine
from llmjobs.report.figures.matrix import matrix_figures
from llmjobs.report.measure.matrix import read_cells
from llmjobs.report.write.figures import draw_figures
from llmjobs.runfolder.folder import RunFolder
from llmjobs.runner.cursor import progress_of
from llmjobs.runner.run import Outcome


def run(study: Manifest, results: Path, *, fresh: bool = False, ray: str | None = None) -> Outcome:
    """Run (or go on with) the matrix of ``study`` below ``results``, on the cluster ``ray`` if given; prints the grid.

    Raises:
        LlmjobsError: one line; nothing that was saved is lost.

    """
    job_cells = make_cells(study)
    with place(ray) as there, open_run(study, results, fresh=fresh) as folder:
        job = MatrixJob(study, folder, there.probe)
        outcome = there.run(job, folder, {cell.name: cell.model for cell in job.cells}, "auto", whole_nodes=True)
        if not outcome.units and not job.unavailable:
            print(f"stopped by {outcome.stopped_by} before the first cell", file=sys.stderr)
            return outcome
        outcome.failed |= killed_units(job)
        part = summarize(job, outcome)
        write_summary(folder, study, job.name, part)
        if figures := matrix_figures(read_cells([raw_run(folder)])):
            draw_figures(figures, folder.path / "figures")
        click.echo(render_matrix(part))
        if outcome.stopped_by:
            print(
                f"Stopped by {outcome.stopped_by}. Finished cells are saved; run the same command to resume.",
                file=sys.stderr,
            )
        click.echo(f"results: {folder.path} ({len(job_cells)} cells)", err=True)
    return outcome


def dry_run(study: Manifest, results: Path) -> str:
    """Say which cells would run, in which order, and why others would not; runs the probes, no model."""
    section, cells = matrix_section(study), make_cells(study)
    machine = probe_machine([cell.layer for cell in cells])
    folder = RunFolder(results / study.name)
    job = MatrixJob(study, folder)
    job.find_questions(writes=False)
    lines = []
    for repetition in range(1, section.repetitions + 1):
        for cell in shuffled(cells, repetition, section.seed):
            verdict = machine.layers[cell.layer]
            done = progress_of(folder, cell.path(repetition), job.unit(cell, repetition).declared) == "done"
            state = "done" if done else "to do" if verdict.ok else f"unavailable: {verdict.reason}"
            lines.append(f"repetition {repetition}  {cell.name}  {state}")
    return "\n".join(lines)
