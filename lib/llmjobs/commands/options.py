"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

manifest_argument: Decorator = click.argument("manifest", metavar="MANIFEST")
set_option: Decorator = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change one value of the manifest: models[0].quantization=4bit. May be given often.",
)
results_option: Decorator = click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="LLMJOBS_RESULTS",
    default=Path("results"),
    show_default=True,
    help="Folder of all runs (LLMJOBS_RESULTS).",
)
fresh_option: Decorator = click.option(
    "--fresh", is_flag=True, help="Start anew; the old run is moved aside to NAME.1, NAME.2, …, not deleted."
)
ray_option: Decorator = click.option(
    "--ray",
    metavar="ADDRESS",
    help="Run on the Ray cluster that this machine is part of (auto), or on the one at HOST:PORT: docs/cluster.md.",
)


def job_options(*, limit: str, show: str, dry_run: str) -> Decorator:
    """Everything that a job over a manifest takes, with the help of what differs between jobs."""
    options: list[Decorator] = [
        manifest_argument,
        set_option,
        results_option,
        fresh_option,
        ray_option,
        click.option("--limit", type=click.IntRange(1), help=limit),
        click.option("--show", is_flag=True, help=show),
        click.option("--dry-run", is_flag=True, help=dry_run),
    ]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def run_job_command(
    job: Any,
    manifest: str,
    overrides: tuple[str, ...],
    results: Path,
    *,
    fresh: bool,
    ray: str | None,
    limit: int | None,
    show: bool,
    dry_run: bool,
) -> int:
    """Run ``job`` (a module with ``run``, ``dry_run`` and ``with_limit``) on a manifest; returns the exit code."""
    from llmjobs.manifest import load_manifest

    study = load_manifest(manifest, overrides)
    if limit is not None:
        study = job.with_limit(study, limit)
    if dry_run:
        click.echo(job.dry_run(study, results))
        return 0
    code: int = job.run(study, results, fresh=fresh, show=show, ray=ray).exit_code
    return code
