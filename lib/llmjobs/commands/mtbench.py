"""``llmjobs mtbench``: agents answer two-turn questions, judges rate them."""

from pathlib import Path

import click

from llmjobs.commands.options import fresh_option, manifest_argument, results_option, set_option


@click.command()
@manifest_argument
@set_option
@results_option
@fresh_option
@click.option("--limit", type=click.IntRange(1), help="First questions of each category only.")
@click.option("--show", is_flag=True, help="Print every answer and every judgment.")
@click.option("--dry-run", is_flag=True, help="Say what would run and could cost; ask nobody.")
def command(
    manifest: str,
    overrides: tuple[str, ...],
    results: Path,
    fresh: bool,
    limit: int | None,
    show: bool,
    dry_run: bool,
) -> int:
    """Let the agents of MANIFEST answer and its judges rate; go on where a stopped run was.

    Answers and judgments are written in FastChat's form too, below mtbench/fastchat in the run's folder.
    """
    from llmjobs.jobs import mtbench
    from llmjobs.manifest import load_manifest

    study = load_manifest(manifest, overrides)
    if limit is not None:
        study = mtbench.with_limit(study, limit)
    if dry_run:
        click.echo(mtbench.dry_run(study, results))
        return 0
    return mtbench.run(study, results, fresh=fresh, show=show).exit_code
