"""``llmjobs converse``: what a conversation loses without its history."""

from typing import Any

import click

from llmjobs.commands.options import job_options, run_job_command


@click.command()
@job_options(
    limit="First conversations of each set only.",
    show="Print the conversations with every answer, right or wrong.",
    dry_run="Say what would run, load no model.",
)
def command(**options: Any) -> int:
    """Hold the scripted conversations of MANIFEST with every memory; go on where a stopped run was."""
    from llmjobs.jobs import converse

    return run_job_command(converse, **options)
