"""``llmjobs serve``: the chat agent behind an OpenAI-compatible API."""

from pathlib import Path

import click

from llmjobs.commands.options import set_option


@click.command()
@click.argument("model", required=False)
@set_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free port.")
@click.option(
    "--max-waiting", type=click.IntRange(0), default=8, show_default=True, help="Requests that may wait for their turn."
)
@click.option("--requests-per-minute", type=click.IntRange(0), default=0, help="No limit by default.")
@click.option(
    "--max-connections", type=click.IntRange(1), default=64, show_default=True, help="Open connections at one time."
)
@click.option("--api-key-env", metavar="VARIABLE", help="Environment variable with the API key that clients must send.")
def command(
    model: str | None,
    overrides: tuple[str, ...],
    host: str,
    port: int,
    max_waiting: int,
    requests_per_minute: int,
    max_connections: int,
    api_key_env: str | None,
) -> int:
    """Serve MODEL: a hub id, a folder, a demo model, or a manifest with a ``chat:`` section.

    POST /v1/chat/completions (whole or streamed) and GET /v1/models, one answer at a time.
    """
    from llmjobs.chat.server_limits import Limits
    from llmjobs.jobs.chat_request import make_request
    from llmjobs.jobs.chat_serve import ServeRequest, serve

    request = make_request(model, overrides, {}, results=Path("results"))
    limits = Limits(max_waiting, requests_per_minute, max_connections)
    return serve(request.spec, request.section, ServeRequest(host, port, limits, api_key_env))
