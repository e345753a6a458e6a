"""llama.cpp's C API, with the ctypes signatures of ``llama-cpp-python``; its log is collected, not printed.

A file's weights and vocabulary are loaded here, and the log says why a file is refused.
"""

import ctypes
import logging
import re
import sys
import threading
from collections import deque
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from llmjobs.errors import MissingPackageError, ModelError, printable

log = logging.getLogger(__name__)
INSTALL = "pip install 'llmjobs[gguf]'"
KEPT_LINES = 2000
_WARN, _ERROR, _CONTINUED = 3, 4, 5
"""Levels of ``ggml_log_level``: none, debug, info, warn, error, continued."""


class _Log:
    """The last lines that llama.cpp logged, with their levels."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str]] = deque(maxlen=KEPT_LINES)
        self._lock = threading.Lock()
        self._begun = (0, "")

    def add(self, level: int, text: bytes) -> None:
        """Add a piece of text; a line ends with a line break."""
        with self._lock:
            kept, before = self._begun
            level = kept if level == _CONTINUED else level
            before += text.decode("utf-8", "replace")
            if not before.endswith("\n"):
                self._begun = (level, before)
                return
            self._begun = (0, "")
            self._lines.append((level, before.strip()))
        log.debug("llama.cpp: %s", printable(before.strip()))

    def errors(self) -> list[str]:
        """Errors since :meth:`clear` without the function's name; warnings if there are no errors."""
        with self._lock:
            for level in (_ERROR, _WARN):
                if found := [line.partition(": ")[2] or line for at, line in self._lines if at == level]:
                    return found
        return []

    def lines(self) -> list[str]:
        """The lines since :meth:`clear`; only the last ones are kept."""
        with self._lock:
            return [line for _, line in self._lines]

    def clear(self) -> None:
        with self._lock:
            self._lines.clear()


LOG = _Log()
_callback: Any = None
"""Kept alive here, because llama.cpp may call it until the process ends."""


@cache
def library() -> Any:
    """Return the module with llama.cpp's functions, loaded once.

    Raises:
        MissingPackageError: ``llama-cpp-python`` is not installed, or its library cannot be loaded here.

    """
    global _callback
    try:
        import_module("llama_cpp")
        api: Any = import_module("llama_cpp.llama_cpp")
    except ModuleNotFoundError as error:
        missing = (error.name or "llama_cpp").replace("llama_cpp", "llama-cpp-python")
        raise MissingPackageError(f"GGUF files need the {missing} package; run {INSTALL}") from None
    except (OSError, RuntimeError, ImportError) as error:
        raise MissingPackageError(
            f"llama-cpp-python is installed, but its library cannot be loaded ({printable(str(error))[:200]}); "
            f"build it on this machine: pip install --force-reinstall --no-binary llama-cpp-python llama-cpp-python"
        ) from None

    for name in ("outnull_file", "errnull_file"):  # which the package opens and never closes
        if stream := getattr(sys.modules.get("llama_cpp._utils"), name, None):
            stream.close()

    def take(level: int, text: bytes, _: Any) -> None:
        LOG.add(level, text or b"")

    _callback = api.llama_log_callback(take)
    api.llama_log_set(_callback, ctypes.c_void_p(0))
    api.llama_backend_init()
    return api


def is_installed() -> bool:
    """Whether the package is installed; its library is not loaded."""
    from importlib.util import find_spec

    return find_spec("llama_cpp") is not None


def version() -> str:
    """Return the binding's version.

    Raises:
        MissingPackageError: it is not installed.

    """
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("llama-cpp-python")
    except PackageNotFoundError:
        raise MissingPackageError(f"GGUF files need the llama-cpp-python package; run {INSTALL}") from None


def load_weights(who: str, path: Path, layers_on_gpu: int, *, special: bool = True) -> Any:
    """Load a file whose header was checked; return llama.cpp's model.

    Without ``special``, the weights stay as in the file, for kernels that run on any processor.

    Raises:
        ModelError: llama.cpp refuses it.

    """
    api = library()
    parameters = api.llama_model_default_params()
    parameters.n_gpu_layers = layers_on_gpu
    parameters.use_extra_bufts = special
    LOG.clear()
    model = api.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise ModelError(f"{who}: llama.cpp cannot load {path.name}: {refusal()}")
    return model


def vocabulary_of(model: Any) -> int:
    """Number of tokens in the logits of a loaded model."""
    api = library()
    return int(api.llama_vocab_n_tokens(api.llama_model_get_vocab(model)))


def refusal() -> str:
    """Why llama.cpp refused, from its log."""
    lines = (re.sub(r"^(error loading model(\s\w+)?: )+", "", line) for line in LOG.errors())
    reason = "; ".join([line for line in lines if line != "failed to load model"][:2]) or "it gave no reason"
    if "unknown model architecture" in reason or "unknown pre-tokenizer" in reason:
        return f"{reason}; a newer llama-cpp-python may support it"
    return f"{reason}; fetch the file again, or use another one"
