"""``llmjobs eval``: accuracy of models on benchmarks."""

from typing import Any

import click

from llmjobs.commands.options import job_options, run_job_command


@click.command()
@job_options(
    limit="First questions of each subject only.",
    show="Print each question, the model's answer, and whether it is right.",
    dry_run="Say what would run, load no model.",
)
def command(**options: Any) -> int:
    """Evaluate the models of MANIFEST on its benchmarks; go on where a stopped run was."""
    from llmjobs.jobs import evaluate

    return run_job_command(evaluate, **options)
