"""``llmjobs fetch``: fill the cache."""

import click

from llmjobs.commands.options import manifest_argument, set_option


@click.command()
@manifest_argument
@set_option
@click.option("--dry-run", is_flag=True, help="Tell the sizes, fetch nothing.")
def command(manifest: str, overrides: tuple[str, ...], dry_run: bool) -> int:
    """Bring the models and the rows of MANIFEST into the hub's cache, sizes first.

    Only safetensors, unless a model says pickle_weights: true. A stopped fetch goes on where it was. Afterwards
    HF_HUB_OFFLINE=1 keeps the jobs off the network.
    """
    from llmjobs.jobs import fetch
    from llmjobs.manifest import load_manifest

    return fetch.run(load_manifest(manifest, overrides), dry_run=dry_run)
