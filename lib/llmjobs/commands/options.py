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
