"""``llmjobs run``: every section of a manifest, then the report."""

from pathlib import Path

import click

from llmjobs.commands.options import fresh_option, manifest_argument, ray_option, results_option, set_option


@click.command()
@manifest_argument
@set_option
@results_option
@fresh_option
@ray_option
def command(manifest: str, overrides: tuple[str, ...], results: Path, fresh: bool, ray: str | None) -> int:
    """Run every job that MANIFEST has a section for, in order, and write the report."""
    from llmjobs.errors import EXIT_RESUMABLE
    from llmjobs.jobs.sections import run_all
    from llmjobs.manifest import load_manifest
    from llmjobs.report.job import make_report

    study = load_manifest(manifest, overrides)
    code = run_all(study, results, fresh=fresh, ray=ray)
    if code != EXIT_RESUMABLE:
        folder = results / study.name
        made = make_report([folder], folder / "report.pdf")
        click.echo(f"report: {made.pdf}")
    return code
