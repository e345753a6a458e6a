"""``llmjobs mtbench``: agents answer two-turn questions, judges rate them."""

from typing import Any

import click

from llmjobs.commands.options import job_options, run_job_command


@click.command()
@job_options(
    limit="First questions of each category only.",
    show="Print every answer and every judgment.",
    dry_run="Say what would run and could cost; ask nobody.",
)
def command(**options: Any) -> int:
    """Let the agents of MANIFEST answer and its judges rate; go on where a stopped run was.

    Answers and judgments are written in FastChat's form too, below mtbench/fastchat in the run's folder.
    """
    from llmjobs.jobs import mtbench

    return run_job_command(mtbench, **options)
