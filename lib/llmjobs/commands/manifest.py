"""``llmjobs manifest``: check a manifest, print it resolved, or print the schema."""

import json
import sys

import click

from llmjobs.commands.options import set_option


@click.command()
@click.argument("manifest", required=False)
@set_option
@click.option("--schema", is_flag=True, help="Print the JSON schema of manifests, for editors.")
def command(manifest: str | None, overrides: tuple[str, ...], schema: bool) -> None:
    """Check MANIFEST and print it with every default written out."""
    from llmjobs.errors import printable
    from llmjobs.manifest import dump_manifest, json_schema, load_manifest

    if schema:
        click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    elif manifest is None:
        raise click.UsageError("name a manifest, or use --schema")
    else:
        text = dump_manifest(load_manifest(manifest, overrides))
        click.echo("\n".join(map(printable, text.split("\n"))) if sys.stdout.isatty() else text, nl=False)
