"""``llmjobs serve``: the chat agent behind an OpenAI-compatible API."""

from pathlib import Path

import click

from llmjobs.commands.options import set_option


@click.command()
@click.argument("model", required=False)
@set_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind; loopback unless told.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--max-waiting", type=click.IntRange(0), default=8, show_default=True, help="Requests that may wait.")
@click.option("--requests-per-minute", type=click.IntRange(0), default=0, help="0: no such limit.")
@click.option("--api-key-env", metavar="VARIABLE", help="Environment variable with the key that requests must bear.")
def command(
    model: str | None,
    overrides: tuple[str, ...],
    host: str,
    port: int,
    max_waiting: int,
    requests_per_minute: int,
    api_key_env: str | None,
) -> int:
    """Serve MODEL: a hub id, a folder, a demo model, or a manifest with a ``chat:`` section.

    POST /v1/chat/completions (whole or streamed) and GET /v1/models, one answer at a time.
    """
    from llmjobs.chat.server_limits import Limits
    from llmjobs.jobs.chat_request import make_request
    from llmjobs.jobs.chat_serve import ServeRequest, serve

    request = make_request(model, overrides, {}, results=Path("results"))
    limits = Limits(max_waiting, requests_per_minute)
    return serve(request.spec, request.section, ServeRequest(host, port, limits, api_key_env))
