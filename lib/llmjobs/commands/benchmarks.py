"""``llmjobs benchmarks``: what is known by name."""

import click


@click.command()
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the benchmarks; with NAME, tell one of them: subjects, prompt forms, where its rows come from."""
    from llmjobs.benchmarks.listing import describe, table
    from llmjobs.benchmarks.registry import benchmark_class, names
    from llmjobs.manifest.suggest import not_one_of

    if name is None:
        click.echo(table())
    elif name in names():
        click.echo(describe(benchmark_class(name)))
    else:
        raise click.UsageError(f"NAME: {not_one_of(name, names())}")
