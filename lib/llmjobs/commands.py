"""The commands of ``llmjobs``: options in, one call of a job out. A command imports its job when it runs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

# Options that several commands share.

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


# `llmjobs eval`: accuracy of models on benchmarks.


@click.command()
@job_options(
    limit="First questions of each subject only.",
    show="Print each question, the model's answer, and whether it is right.",
    dry_run="Say what would run, load no model.",
)
def eval_command(**options: Any) -> int:
    """Evaluate the models of MANIFEST on its benchmarks; go on where a stopped run was."""
    from llmjobs.eval import job as eval_job

    return run_job_command(eval_job, **options)


# `llmjobs matrix`: one grid of devices and precisions.


@click.command()
@manifest_argument
@set_option
@results_option
@fresh_option
@ray_option
@click.option("--dry-run", is_flag=True, help="Probe the machine and say which cells would run, load no model.")
def matrix_command(
    manifest: str, overrides: tuple[str, ...], results: Path, fresh: bool, ray: str | None, dry_run: bool
) -> int:
    """Time the models of MANIFEST on every device and precision, each cell in its own process.

    Time, memory, energy and accuracy side by side, and which answers a precision changes. A cell that this machine
    cannot run is in the grid with the reason. Go on where a stopped run was.
    """
    from llmjobs.manifest import load_manifest
    from llmjobs.matrix import job as matrix_job

    study = load_manifest(manifest, overrides)
    if dry_run:
        click.echo(matrix_job.dry_run(study, results))
        return 0
    return matrix_job.run(study, results, fresh=fresh, ray=ray).exit_code


# `llmjobs chat`: talk with a model in the terminal.

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
def chat_command(
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
    from llmjobs.chat.session import chat, make_request

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


# `llmjobs converse`: what a conversation loses without its history.


@click.command()
@job_options(
    limit="First conversations of each set only.",
    show="Print the conversations with every answer, right or wrong.",
    dry_run="Say what would run, load no model.",
)
def converse_command(**options: Any) -> int:
    """Hold the scripted conversations of MANIFEST with every memory; go on where a stopped run was."""
    from llmjobs.converse import job as converse_job

    return run_job_command(converse_job, **options)


# `llmjobs mtbench`: agents answer two-turn questions, judges rate them.


@click.command()
@job_options(
    limit="First questions of each category only.",
    show="Print every answer and every judgment.",
    dry_run="Say what would run and could cost; ask nobody.",
)
def mtbench_command(**options: Any) -> int:
    """Let the agents of MANIFEST answer and its judges rate; go on where a stopped run was.

    Answers and judgments are written in FastChat's form too, below mtbench/fastchat in the run's folder.
    """
    from llmjobs.mtbench import job as mtbench_job

    return run_job_command(mtbench_job, **options)


# `llmjobs serve`: the chat agent behind an OpenAI-compatible API.


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
def serve_command(
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
    from llmjobs.chat.server import Limits, ServeRequest, serve
    from llmjobs.chat.session import make_request

    request = make_request(model, overrides, {}, results=Path("results"))
    limits = Limits(max_waiting, requests_per_minute, max_connections)
    return serve(request.spec, request.section, ServeRequest(host, port, limits, api_key_env))


# `llmjobs report`: one PDF from the results of one or more runs.


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts)
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not COLUMN=VALUE", param_hint=option)
    return pairs


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help=("The PDF to write; figures, tables and notes go beside it.  [default: report.pdf in the first folder]"),
)
@click.option("--html", is_flag=True, help="Write report.html too: every question with every model's answer.")
@click.option(
    "--budget",
    multiple=True,
    metavar="LIMIT",
    help="Recommend within memory=8GiB, time=1h, cpu=, gpu=, energy=.",
)
@click.option("--common", is_flag=True, help="Compare on the questions that all models were asked.")
@click.option("--any-prompt", is_flag=True, help="Compare across prompts, shots and versions; says what differs.")
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Take a part: study, run, model, device, quantization, metric, …",
)
@click.option("--questions", type=click.Path(path_type=Path), help="Folder of SUBJECT.csv: texts and answers.")
@click.option("--label-notes", type=click.Path(path_type=Path), help="Folder of MMLU-Redux's notes on wrong labels.")
@click.option("--name", help="Name of the benchmark in tables that have no such column.")
def report_command(
    results: tuple[Path, ...],
    output: Path | None,
    html: bool,
    budget: tuple[str, ...],
    common: bool,
    any_prompt: bool,
    where: tuple[str, ...],
    questions: Path | None,
    label_notes: Path | None,
    name: str | None,
) -> int:
    """Write one PDF on RESULTS: run folders, or logs of lm-eval, inspect_ai or HELM, or tables of answers.

    Accuracy with intervals, cost, paired differences, shared mistakes, patterns, and how all of it was
    made. Results that are not comparable are refused with what differs.
    """
    from llmjobs.errors import printable
    from llmjobs.report.measure.cost import parse_budget
    from llmjobs.report_job import make_report

    place = output or (results[0] if results[0].is_dir() else results[0].parent) / "report.pdf"
    made = make_report(
        results,
        place,
        html=html,
        budget=parse_budget(budget),
        common=common,
        any_prompt=any_prompt,
        where=_pairs(where, "--where"),
        questions=questions,
        label_notes=label_notes,
        name=name,
        progress=lambda line: click.echo(line, err=True),
    )
    for notice in made.notices:
        click.echo(printable(f"note: {notice}"), err=True)
    if made.partial:
        click.echo("note: the study is not finished; the report is marked as partial", err=True)
    for finding in made.findings[:5]:
        click.echo(printable(f"- {finding.sentence}"))
    click.echo(f"wrote {made.pdf} and {len(made.files) - 1} files beside it")
    return 0


# `llmjobs benchmarks`: what is known by name.


@click.command()
@click.argument("name", required=False)
def benchmarks_command(name: str | None) -> None:
    """List the benchmarks; with NAME, tell one of them: subjects, prompt forms, where its rows come from."""
    from llmjobs.benchmarks.registry import benchmark_class, describe, names, table
    from llmjobs.manifest.suggest import not_one_of

    if name is None:
        click.echo(table())
    elif name in names():
        click.echo(describe(benchmark_class(name)))
    else:
        raise click.UsageError(f"NAME: {not_one_of(name, names())}")


# `llmjobs fetch`: fill the cache.


@click.command()
@manifest_argument
@set_option
@click.option("--dry-run", is_flag=True, help="Tell the sizes, fetch nothing.")
def fetch_command(manifest: str, overrides: tuple[str, ...], dry_run: bool) -> int:
    """Bring the models and the rows of MANIFEST into the hub's cache, sizes first.

    Only safetensors, unless a model says pickle_weights: true. A stopped fetch goes on where it was. Afterwards
    HF_HUB_OFFLINE=1 keeps the jobs off the network.
    """
    from llmjobs import fetch
    from llmjobs.manifest import load_manifest

    return fetch.run(load_manifest(manifest, overrides), dry_run=dry_run)


# `llmjobs run`: every section of a manifest, then the report.


@click.command()
@manifest_argument
@set_option
@results_option
@fresh_option
@ray_option
def run_command(manifest: str, overrides: tuple[str, ...], results: Path, fresh: bool, ray: str | None) -> int:
    """Run every job that MANIFEST has a section for, in order, and write the report."""
    from llmjobs.errors import EXIT_RESUMABLE
    from llmjobs.manifest import load_manifest
    from llmjobs.report_job import make_report
    from llmjobs.run_all import run_all

    study = load_manifest(manifest, overrides)
    code = run_all(study, results, fresh=fresh, ray=ray)
    if code != EXIT_RESUMABLE:
        folder = results / study.name
        made = make_report([folder], folder / "report.pdf")
        click.echo(f"report: {made.pdf}")
    return code


# `llmjobs plan`: before the first hour.


@click.command()
@manifest_argument
@set_option
@results_option
@click.option("--units", is_flag=True, help="List every unit, however many there are.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan_command(manifest: str, overrides: tuple[str, ...], results: Path, units: bool, as_json: bool) -> int:
    """Say what MANIFEST would run: questions, tokens, download, memory, and about how long. Runs no model.

    Time and memory come from a few layers of each model's shape with made-up weights, timed for a second. Exit code 1:
    a model cannot be had, or does not fit.
    """
    from llmjobs.manifest import load_manifest
    from llmjobs.prepare import plan as prepare_plan

    return prepare_plan.run(load_manifest(manifest, overrides), results, as_json=as_json, units=units)


# `llmjobs doctor`: what this machine can do.


@click.command()
@click.argument("manifest", metavar="[MANIFEST]", required=False)
@set_option
@results_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor_command(manifest: str | None, overrides: tuple[str, ...], results: Path, as_json: bool) -> int:
    """Say what this machine can do, and whether it can do what MANIFEST asks: a line a check, with the remedy.

    Devices, number formats and quantization are tried, not looked up; token, access to gated models, disk, clocks and
    counters are checked. Works offline. Exit code 1: something that is needed is missing.
    """
    from llmjobs.manifest import load_manifest
    from llmjobs.prepare import doctor

    study = load_manifest(manifest, overrides) if manifest else None
    return doctor.run(study, results, as_json=as_json)


# `llmjobs manifest`: check a manifest, print it resolved, or print the schema.


@click.command()
@click.argument("manifest", required=False)
@set_option
@click.option("--schema", is_flag=True, help="Print the JSON schema of manifests, for editors.")
def manifest_command(manifest: str | None, overrides: tuple[str, ...], schema: bool) -> None:
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
