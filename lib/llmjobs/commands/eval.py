"""``llmjobs eval``: accuracy of models on benchmarks."""

from pathlib import Path

import click

from llmjobs.commands.options import fresh_option, manifest_argument, results_option, set_option


@click.command()
@manifest_argument
@set_option
@results_option
@fresh_option
@click.option("--limit", type=click.IntRange(1), help="First questions of each subject only.")
@click.option("--show", is_flag=True, help="Print each question, the model's answer, and whether it is right.")
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
    """Evaluate the models of MANIFEST on its benchmarks; go on where a stopped run was."""
    from llmjobs.jobs import evaluate
    from llmjobs.manifest import load_manifest

    study = load_manifest(manifest, overrides)
    if limit is not None:
        study = evaluate.with_limit(study, limit)
    if dry_run:
        click.echo(evaluate.dry_run(study, results))
        return 0
    return evaluate.run(study, results, fresh=fresh, show=show).exit_code
