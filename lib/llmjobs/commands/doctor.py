"""``llmjobs doctor``: what this machine can do."""

from pathlib import Path

import click

from llmjobs.commands.options import results_option, set_option


@click.command()
@click.argument("manifest", metavar="[MANIFEST]", required=False)
@set_option
@results_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(manifest: str | None, overrides: tuple[str, ...], results: Path, as_json: bool) -> int:
    """Say what this machine can do, and whether it can do what MANIFEST asks: a line a check, with the remedy.

    Devices, number formats and quantization are tried, not looked up; token, access to gated models, disk, clocks and
    counters are checked. Works offline. Exit code 1: something that is needed is missing.
    """
    from llmjobs.jobs import doctor
    from llmjobs.manifest import load_manifest

    study = load_manifest(manifest, overrides) if manifest else None
    return doctor.run(study, results, as_json=as_json)
