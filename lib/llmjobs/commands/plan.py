"""``llmjobs plan``: before the first hour."""

from pathlib import Path

import click

from llmjobs.commands.options import manifest_argument, results_option, set_option


@click.command()
@manifest_argument
@set_option
@results_option
@click.option("--units", is_flag=True, help="List every unit, however many there are.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(manifest: str, overrides: tuple[str, ...], results: Path, units: bool, as_json: bool) -> int:
    """Say what MANIFEST would run: questions, tokens, download, memory, and about how long. Runs no model.

    Time and memory come from a few layers of each model's shape with made-up weights, timed for a second. Exit code 1:
    a model cannot be had, or does not fit.
    """
    from llmjobs.jobs import plan
    from llmjobs.manifest import load_manifest

    return plan.run(load_manifest(manifest, overrides), results, as_json=as_json, units=units)
