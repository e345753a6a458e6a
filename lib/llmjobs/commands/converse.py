"""``llmjobs converse``: what a conversation loses without its history."""

from pathlib import Path

import click

from llmjobs.commands.options import fresh_option, manifest_argument, results_option, set_option


@click.command()
@manifest_argument
@set_option
@results_option
@fresh_option
@click.option("--limit", type=click.IntRange(1), help="First conversations of each set only.")
@click.option("--show", is_flag=True, help="Print the conversations with every answer, right or wrong.")
@click.option("--dry-run", is_flag=True, help="Say what would run, load no model.")
def command(
    manifest: str,
    overrides: tuple[str, ...],
    results: Path,
    fresh: bool,
    limit: int | None,
    show: bool,
    dry_run: bool,
) -> int:
    """Hold the scripted conversations of MANIFEST with every memory; go on where a stopped run was."""
    from llmjobs.jobs import converse
    from llmjobs.manifest import load_manifest

    study = load_manifest(manifest, overrides)
    if limit is not None:
        study = converse.with_limit(study, limit)
    if dry_run:
        click.echo(converse.dry_run(study, results))
        return 0
    return converse.run(study, results, fresh=fresh, show=show).exit_code
