"""``llmjobs chat``: talk with a model in the terminal."""

from pathlib import Path
from typing import Any

import click

from llmjobs.commands.options import results_option, set_option

STRATEGIES = ("none", "full", "window", "summary", "retrieve", "hybrid")


@click.command()
@click.argument("model", required=False)
@set_option
@results_option
@click.option("--name", help="Folder of the conversations below the results; the manifest's name, else 'chat'.")
@click.option("--resume", is_flag=True, help="Go on with the last conversation, or with --conversation N.")
@click.option("--conversation", type=click.IntRange(1), metavar="N", help="Which conversation to resume.")
@click.option("--once", metavar="QUESTION", help="Answer one question and leave.")
@click.option("--system", help="System message.")
@click.option("--history/--no-history", default=None, help="Answer with the turns before, or each message alone.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="What is sent when the context is full.")
@click.option("--max-context", type=click.IntRange(16), help="Tokens of prompt and answer together.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Longest answer.")
@click.option("--temperature", type=click.FloatRange(0, 10), help="0 (the default) takes the likeliest token.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Smallest set with so much probability.")
@click.option("--seed", type=click.IntRange(0), help="Of the random numbers.")
@click.option("--endpoint", metavar="URL", help="An OpenAI-compatible server instead of a local model.")
@click.option("--model", "model_name", metavar="NAME", help="The model's name on the endpoint, or a local model.")
@click.option("--api-key-env", metavar="VARIABLE", help="Environment variable that holds the endpoint's key.")
@click.option("--timeout", "timeout_s", default=120.0, show_default=True, help="Longest silence of an endpoint, in s.")
def command(
    model: str | None,
    overrides: tuple[str, ...],
    results: Path,
    name: str | None,
    resume: bool,
    conversation: int | None,
    once: str | None,
    endpoint: str | None,
    model_name: str | None,
    api_key_env: str | None,
    timeout_s: float,
    **settings: Any,
) -> int:
    """Talk with MODEL: a hub id, a folder, a demo model, or a manifest.

    Without MODEL: a small instruct model that is in the cache, else the demo model. Input from a pipe is taken a line
    a turn. The conversation is on disk after every turn; --resume goes on with it.
    """
    from llmjobs.jobs.chat_request import make_request
    from llmjobs.jobs.chat_session import chat

    request = make_request(
        model or model_name,
        overrides,
        {key: value for key, value in settings.items() if value is not None},
        endpoint=endpoint,
        endpoint_model=model_name or model,
        api_key_env=api_key_env,
        results=results,
        name=name,
        resume=resume or conversation is not None,
        conversation=conversation,
        timeout_s=timeout_s,
    )
    return chat(request, once)
