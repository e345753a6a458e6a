"""The ``llmjobs`` command: a thin click group that imports a job only when it is called."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import click

from llmjobs import __version__
from llmjobs.cluster import when_gone
from llmjobs.errors import EXIT_ERROR, EXIT_RESUMABLE, LlmjobsError, printable
from llmjobs.extensions import JOBS
from llmjobs.library_warnings import quiet_repeats
from llmjobs.redaction import SafeFormatter, redacted
from llmjobs.work.signals import StopRequestedError

COMMANDS = {name: job.summary for name, job in JOBS.items()} | {
    "chat": "Chat with a model in the terminal.",
    "serve": "Serve the chat agent behind an OpenAI-compatible API.",
    "report": "Write a PDF report on one or more runs.",
    "benchmarks": "List the built-in benchmarks.",
    "fetch": "Download the models and data of a manifest.",
    "run": "Run every job of a manifest, then write the report.",
    "plan": "Estimate tokens, time, memory and disk per model without running anything.",
    "doctor": "Check what this machine can do and what is missing.",
    "manifest": "Check a manifest, print it with all defaults, or print the JSON schema.",
}
"""Name → help line. They are here so that ``--help`` does not import any job."""


class LazyGroup(click.Group):
    """Imports the commands only when one is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command, or None if there is none of that name."""
        if name not in COMMANDS:
            return None
        commands = import_module("llmjobs.commands")
        found: click.Command
        found = commands.job_command(name) if name in JOBS else getattr(commands, f"{name}_command")
        found.name = name
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest name for a typo."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from llmjobs.manifest.suggest import not_one_of

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

    A manifest (a YAML file) lists models, benchmarks and settings. Jobs write their results below results/. If a job
    was stopped or killed, run the same command again to resume it.

    Exit codes: 0 done, 1 error, 2 invalid manifest or option, 3 finished but some units or questions failed, 75 stopped
    by a signal with progress saved (run the same command to resume).
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
