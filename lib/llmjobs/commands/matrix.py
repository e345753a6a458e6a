"""``llmjobs matrix``: one grid of devices and precisions."""

from pathlib import Path

import click

from llmjobs.commands.options import fresh_option, manifest_argument, ray_option, results_option, set_option


@click.command()
@manifest_argument
@set_option
@results_option
@fresh_option
@ray_option
@click.option("--dry-run", is_flag=True, help="Probe the machine and say which cells would run, load no model.")
def command(
    manifest: str, overrides: tuple[str, ...], results: Path, fresh: bool, ray: str | None, dry_run: bool
) -> int:
    """Time the models of MANIFEST on every device and precision, each cell in its own process.

    Time, memory, energy and accuracy side by side, and which answers a precision changes. A cell that this machine
    cannot run is in the grid with the reason. Go on where a stopped run was.
    """
    from llmjobs.jobs import matrix
    from llmjobs.manifest import load_manifest

    study = load_manifest(manifest, overrides)
    if dry_run:
        click.echo(matrix.dry_run(study, results))
        return 0
    return matrix.run(study, results, fresh=fresh, ray=ray).exit_code
