"""The command line: every command with its options, and how an error becomes one line and an exit code.

Nothing that a command needs is imported before it is called.
"""

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from llmjobs import __version__
from llmjobs.cluster import when_gone
from llmjobs.errors import LlmjobsError, printable
from llmjobs.exit_codes import EXIT_ERROR, EXIT_RESUMABLE
from llmjobs.extensions import JOBS, STRATEGIES, load
from llmjobs.library_warnings import quiet_repeats
from llmjobs.redaction import SafeFormatter, redacted
from llmjobs.terminal_text import plural
from llmjobs.work.signals import StopRequestedError

# Each command reads its options, imports what it needs and calls it.

# Options that several commands share.

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

manifest_argument: Decorator = click.argument("manifest", metavar="MANIFEST")
set_option: Decorator = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change one value of the manifest, e.g. models[0].quantization=4bit. Can be repeated.",
)
results_option: Decorator = click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="LLMJOBS_RESULTS",
    default=Path("results"),
    show_default=True,
    help="Folder that contains the runs. Environment variable: LLMJOBS_RESULTS.",
)
fresh_option: Decorator = click.option(
    "--fresh", is_flag=True, help="Start over. The old run is kept as NAME.1, NAME.2, …"
)
ray_option: Decorator = click.option(
    "--ray",
    metavar="ADDRESS",
    help="Run on a Ray cluster: 'auto' for the one this machine belongs to, 'local', or HOST:PORT.",
)


# One command for each job of :data:`llmjobs.extensions.JOBS`.


def job_command(name: str) -> click.Command:
    """Build the command of a job, such as ``llmjobs eval``."""
    job = JOBS[name]
    options: list[Decorator] = [manifest_argument, set_option, results_option, fresh_option, ray_option]
    if job.limit:
        options.append(click.option("--limit", type=click.IntRange(1), help=job.limit))
    if job.show:
        options.append(click.option("--show", is_flag=True, help=job.show))
    options.append(click.option("--dry-run", is_flag=True, help=job.dry_run))

    def command(**values: Any) -> int:
        return run_job_command(load(job.module), **values)

    function: Callable[..., Any] = command
    for option in reversed(options):
        function = option(function)
    return click.command(name, help=job.help)(function)


def run_job_command(
    job: Any,
    manifest: str,
    overrides: tuple[str, ...],
    results: Path,
    *,
    dry_run: bool,
    limit: int | None = None,
    **options: Any,
) -> int:
    """Run ``job`` (a module with ``run``, ``dry_run`` and ``with_limit``) on a manifest; returns the exit code."""
    from llmjobs.manifest import load_manifest

    study = load_manifest(manifest, overrides)
    if limit is not None:
        study = job.with_limit(study, limit)
    if dry_run:
        click.echo(job.dry_run(study, results))
        return 0
    code: int = job.run(study, results, **options).exit_code
    return code


# `llmjobs chat`: talk with a model in the terminal.


@click.command()
@click.argument("model", required=False)
@set_option
@results_option
@click.option(
    "--name", help="Name of the run that stores the conversations. Default: the manifest's name, else 'chat'."
)
@click.option("--resume", is_flag=True, help="Continue the last conversation, or the one given by --conversation.")
@click.option("--conversation", type=click.IntRange(1), metavar="N", help="Number of the conversation to continue.")
@click.option("--once", metavar="QUESTION", help="Answer one question and exit.")
@click.option("--system", help="System message.")
@click.option("--history/--no-history", default=None, help="Use the earlier turns, or answer each message alone.")
@click.option(
    "--strategy",
    type=click.Choice(list(STRATEGIES)),
    help="What to send when the conversation no longer fits the context.",
)
@click.option("--max-context", type=click.IntRange(16), help="Maximum tokens of prompt and answer together.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Maximum tokens of an answer.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 10),
    help="Sampling temperature. 0 (the default) always takes the most likely token.",
)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    help="Sample from the smallest set of tokens whose probability reaches this value.",
)
@click.option("--seed", type=click.IntRange(0), help="Random seed; only used when the temperature is above 0.")
@click.option("--endpoint", metavar="URL", help="Use an OpenAI-compatible server instead of a local model.")
@click.option("--model", "model_name", metavar="NAME", help="Name of the model on the endpoint, or a local model.")
@click.option("--api-key-env", metavar="VARIABLE", help="Environment variable that contains the endpoint's API key.")
@click.option(
    "--timeout",
    "timeout_s",
    default=120.0,
    show_default=True,
    help="Seconds to wait for an endpoint that sends no text.",
)
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
    """Chat with MODEL: a hub id, a folder, a demo model, or a manifest.

    Without MODEL, llmjobs uses a small instruct model from the cache, or the demo model. Piped input is read line by
    line, one turn per line. The conversation is saved after every turn; --resume continues it.
    """
    from llmjobs.chat.start import chat, make_request

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


# `llmjobs serve`: the chat agent behind an OpenAI-compatible API.


@click.command()
@click.argument("model", required=False)
@set_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 picks a free one."
)
@click.option(
    "--max-waiting", type=click.IntRange(0), default=8, show_default=True, help="Maximum number of queued requests."
)
@click.option("--requests-per-minute", type=click.IntRange(0), default=0, help="Rate limit. Default: none.")
@click.option(
    "--max-connections",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Maximum number of open connections.",
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

    It offers POST /v1/chat/completions (with or without streaming) and GET /v1/models, and answers one request at a
    time.
    """
    from llmjobs.chat.server import Limits, ServeRequest, serve
    from llmjobs.chat.start import make_request

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
    help=("PDF to write. Figures, tables and notes go beside it.  [default: report.pdf in the first folder]"),
)
@click.option("--html", is_flag=True, help="Also write report.html: every question with every model's answer.")
@click.option(
    "--budget",
    multiple=True,
    metavar="LIMIT",
    help="Recommend a model within a limit: memory=8GiB, time=1h, cpu=, gpu= or energy=. Can be repeated.",
)
@click.option("--common", is_flag=True, help="Compare only the questions that all models were asked.")
@click.option(
    "--any-prompt",
    is_flag=True,
    help="Compare even if prompt, shots or versions differ; the report names the differences.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Use only matching results: study, run, model, device, quantization, metric, … Can be repeated.",
)
@click.option(
    "--questions",
    type=click.Path(path_type=Path),
    help="Folder of SUBJECT.csv files with the texts and answers of the questions.",
)
@click.option(
    "--label-notes",
    type=click.Path(path_type=Path),
    help="Folder with MMLU-Redux's CSV files, which mark wrong labels.",
)
@click.option("--name", help="Name of the benchmark, for tables without a benchmark column.")
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
    """Write a PDF report on RESULTS: run folders, logs of lm-eval, inspect_ai or HELM, or tables of answers.

    The report shows accuracy with intervals, cost, paired differences, shared mistakes, patterns, and how everything
    was measured. If results cannot be compared, the command says what differs and writes nothing.
    """
    from llmjobs.errors import printable
    from llmjobs.make_report import make_report
    from llmjobs.report.measure.cost import parse_budget

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
        click.echo("note: the study is not finished, so the report is marked as partial", err=True)
    for finding in made.findings[:5]:
        click.echo(printable(f"- {finding.sentence}"))
    click.echo(f"wrote {made.pdf} and {plural(len(made.files) - 1, 'file')} beside it")
    return 0


# `llmjobs choose`: the model, precision and engine to run, from what is measured.


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--memory", metavar="SIZE", help="At most this much memory, on the GPU if it uses one, e.g. 4GiB.")
@click.option("--decode", metavar="RATE", help="At least this many new tokens per second, e.g. 10.")
@click.option(
    "--first-token", metavar="TIME", help="At most this long until the first token, e.g. 2 (seconds) or 500ms."
)
@click.option("--size", metavar="SIZE", help="At most this size of the loaded weights, e.g. 3GiB.")
@click.option(
    "--context", metavar="TOKENS", help="At least this context length; speed and memory must be measured with it."
)
@click.option(
    "--lose",
    metavar="POINTS",
    help="At most this many points of accuracy lost against the least quantized form of the same model.",
)
@click.option(
    "--benchmarks",
    metavar="NAME[=WEIGHT],…",
    help="Benchmarks that decide, with weights, e.g. mmlu=2,gsm8k=1. Default: those that every model was asked.",
)
@click.option(
    "--prefer",
    type=click.Choice(["accuracy", "speed", "size", "memory", "energy"]),
    default="accuracy",
    show_default=True,
    help="What to prefer among the candidates that are as good as the best.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 100, min_open=True),
    default=1.0,
    show_default=True,
    help="Points within which two accuracies count as equal.",
)
@click.option(
    "--costs", type=click.Path(path_type=Path), metavar="CSV", help="Table of costs, for logs that contain none."
)
@click.option("--machine", metavar="TEXT", help="Use only results of the machine whose name contains TEXT.")
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Use only matching results: study, run, model, device, quantization, … Can be repeated.",
)
@click.option("--name", help="Name of the benchmark, for tables without a benchmark column.")
@click.option("--any-prompt", is_flag=True, help="Compare even if prompt, shots or versions differ.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder or PDF to write; notes, JSON and figure go beside it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def choose_command(
    results: tuple[Path, ...],
    benchmarks: str | None,
    prefer: str,
    margin: float,
    costs: Path | None,
    machine: str | None,
    where: tuple[str, ...],
    name: str | None,
    any_prompt: bool,
    output: Path | None,
    as_json: bool,
    **limits: str | None,
) -> int:
    """Say which model to run, at which precision and on which engine, from RESULTS. Runs no model.

    RESULTS are run folders of eval and matrix, logs of other tools, or tables of answers. Candidates are compared on
    the same questions. A measurement that is missing never counts as passed. The exit code is 4 if no candidate is
    known to meet the constraints; the answer then names the nearest ones.
    """
    from llmjobs.choose.constraints import make_constraint, parse_benchmarks
    from llmjobs.choose.decide import Wish
    from llmjobs.choose.job import choose

    wish = Wish(
        constraints=tuple(make_constraint(key, text) for key, text in limits.items() if text is not None),
        benchmarks=parse_benchmarks(benchmarks) if benchmarks is not None else {},
        prefer=prefer,
        margin=margin / 100,
    )
    return choose(
        results,
        wish,
        costs=costs,
        machine=machine,
        where=_pairs(where, "--where"),
        name=name,
        any_prompt=any_prompt,
        output=output,
        as_json=as_json,
    )


# `llmjobs benchmarks`: what is known by name.


@click.command()
@click.argument("name", required=False)
def benchmarks_command(name: str | None) -> None:
    """List the benchmarks, or describe the benchmark NAME: subjects, prompt forms, data set."""
    from llmjobs.benchmarks.registry import benchmark_class, describe, names, table
    from llmjobs.manifest.fields import not_one_of

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
@click.option("--dry-run", is_flag=True, help="Show the sizes without downloading anything.")
def fetch_command(manifest: str, overrides: tuple[str, ...], dry_run: bool) -> int:
    """Download the models and benchmark rows of MANIFEST into the hub's cache, after printing their sizes.

    Only safetensors weights are downloaded, unless a model sets pickle_weights: true. If you stop it, the same command
    resumes. Afterwards you can run the jobs offline with HF_HUB_OFFLINE=1.
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
    """Run every job that MANIFEST has a section for, in order, then write the report."""
    from llmjobs.exit_codes import EXIT_RESUMABLE
    from llmjobs.make_report import make_report
    from llmjobs.manifest import load_manifest
    from llmjobs.run_study import run_all

    study = load_manifest(manifest, overrides)
    code = run_all(study, results, fresh=fresh, ray=ray)
    if code != EXIT_RESUMABLE:
        folder = results / study.name
        made = make_report([folder], folder / "report.pdf")
        click.echo(f"report: {made.pdf}")
    return code


# `llmjobs plan`: an estimate before anything runs.


@click.command()
@manifest_argument
@set_option
@results_option
@click.option("--units", is_flag=True, help="List every unit, even if there are many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan_command(manifest: str, overrides: tuple[str, ...], results: Path, units: bool, as_json: bool) -> int:
    """Estimate questions, tokens, download, memory and time of MANIFEST without running a model.

    Time and memory are measured on a few layers in the shape of each model, with random weights, for a few seconds.
    The exit code is 1 if a model is not available or does not fit.
    """
    from llmjobs.manifest import load_manifest
    from llmjobs.prepare import plan as prepare_plan

    return prepare_plan.run(load_manifest(manifest, overrides), results, as_json=as_json, units=units)


# `llmjobs doctor`: what this machine can do.


@click.command()
@click.argument("manifest", metavar="[MANIFEST]", required=False)
@set_option
@results_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor_command(manifest: str | None, overrides: tuple[str, ...], results: Path, as_json: bool) -> int:
    """Check what this machine can do, and whether it can run MANIFEST. Prints one line per check, with the remedy.

    Doctor tries devices, number formats and quantization, and checks the token, access to gated models, disk, clocks
    and counters. It works offline. The exit code is 1 if something required is missing.
    """
    from llmjobs.manifest import load_manifest
    from llmjobs.prepare import doctor

    study = load_manifest(manifest, overrides) if manifest else None
    return doctor.run(study, results, as_json=as_json)


# `llmjobs manifest`: check a manifest, print it resolved, or print the schema.


@click.command()
@click.argument("manifest", required=False)
@set_option
@click.option("--schema", is_flag=True, help="Print the JSON schema of manifests, for your editor.")
def manifest_command(manifest: str | None, overrides: tuple[str, ...], schema: bool) -> None:
    """Check MANIFEST and print it with all defaults filled in."""
    from llmjobs.errors import printable
    from llmjobs.manifest import dump_manifest, json_schema, load_manifest

    if schema:
        click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    elif manifest is None:
        raise click.UsageError("name a manifest, or use --schema")
    else:
        text = dump_manifest(load_manifest(manifest, overrides))
        click.echo("\n".join(map(printable, text.split("\n"))) if sys.stdout.isatty() else text, nl=False)


COMMANDS = {name: job.summary for name, job in JOBS.items()} | {
    "chat": "Chat with a model in the terminal.",
    "serve": "Serve the chat agent behind an OpenAI-compatible API.",
    "report": "Write a PDF report on one or more runs.",
    "choose": "Say which model and precision to run, from one or more runs.",
    "benchmarks": "List the built-in benchmarks.",
    "fetch": "Download the models and data of a manifest.",
    "run": "Run every job of a manifest, then write the report.",
    "plan": "Estimate tokens, time, memory and disk per model without running anything.",
    "doctor": "Check what this machine can do and what is missing.",
    "manifest": "Check a manifest, print it with all defaults, or print the JSON schema.",
}
"""Name → help line. They are here so that ``--help`` does not import any job."""


class LazyGroup(click.Group):
    """Lists the commands in the order of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """A command, or None if there is none of that name."""
        if name not in COMMANDS:
            return None
        found: click.Command = job_command(name) if name in JOBS else globals()[f"{name}_command"]
        found.name = name
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest name for a typo."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from llmjobs.manifest.fields import not_one_of

            raise click.UsageError(f"command {not_one_of(args[0], list(COMMANDS))}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing anything."""
        with formatter.section("Jobs"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="llmjobs")
@click.option("-v", "--verbose", is_flag=True, help="Print more messages, and the traceback of an error.")
def group(verbose: bool) -> None:
    """Find out which language model, at which precision, to run on your machine.

    A manifest (a YAML file) lists models, benchmarks and settings. Jobs write their results inside results/. If a job
    was stopped or killed, run the same command again to resume it.

    Exit codes: 0 done, 1 error, 2 invalid manifest or option, 3 finished but some units or questions failed, 4 no
    candidate meets the constraints, 75 stopped by a signal with progress saved (run the same command to resume).
    """
    level = logging.DEBUG if verbose else logging.WARNING
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SafeFormatter("llmjobs: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("llmjobs").setLevel(level)
    quiet_repeats()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; every expected error ends in one line and its exit code."""
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, _stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            signal.signal(signal.SIGHUP, _stop)
    when_gone.do = end_at_once
    try:
        code: Any = group.main(list(arguments) if arguments is not None else None, "llmjobs", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "llmjobs"
        said = printable(redacted(error.format_message())).removesuffix(".")
        _end(f"{where}: {said}; see '{where} --help'", error.exit_code)
    except StopRequestedError as stop:
        _end(f"llmjobs: stopped by {stop}; run the same command to resume", EXIT_RESUMABLE)
    except (click.Abort, KeyboardInterrupt):
        _end("llmjobs: stopped", 130)
    except LlmjobsError as error:
        _end(f"llmjobs: {error}", error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_ERROR)
    except Exception as error:
        text = printable(redacted(" ".join(str(error).split())))[:300] or "no reason given"
        _end(f"llmjobs: unexpected error: {text}; please report it with the output of 'llmjobs -v …'", EXIT_ERROR)


def _stop(number: int, _frame: object) -> NoReturn:
    """Also stop outside of a job's steps; as process 1 of a container, the command would otherwise ignore SIGTERM."""
    raise StopRequestedError(number)


def end_at_once(line: str) -> NoReturn:
    """End the process from a thread, even if the main thread is waiting; the run's folder is left as after a kill."""
    os.write(2, f"\nllmjobs: {line}\n".encode())
    os._exit(EXIT_ERROR)


def _end(line: str, code: int) -> NoReturn:
    if logging.getLogger("llmjobs").level == logging.DEBUG:
        print(redacted(traceback.format_exc()), file=sys.stderr)
    print(line, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
