"""Show each warning of a library once per process; bitsandbytes repeats one for every layer and question."""

import logging
import threading
import warnings
from typing import Any

LIBRARIES = ("transformers", "bitsandbytes", "accelerate", "torch", "datasets", "huggingface_hub", "tokenizers")
MOST = 1000
"""Maximum number of different lines to remember."""
PLAIN = {
    "Failed to load CPU gemm_4bit_forward": "4-bit models are slower than necessary on this CPU, because the kernels "
    "package is not installed; run pip install kernels (it downloads code from the hub)",
}
"""Warnings by their beginning, and what is shown instead."""


class _Once(logging.Filter):
    """Lets each line of a library pass once."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or record.name.partition(".")[0] not in (*LIBRARIES, "py"):
            return True
        text = record.getMessage()
        if plain := next((plain for begin, plain in PLAIN.items() if text.startswith(begin)), None):
            text = record.msg = plain
            record.args = ()
        return self.first(record.name, text)

    def first(self, name: str, text: str) -> bool:
        with self._lock:
            key = (name, text)
            if key in self._seen:
                return False
            if len(self._seen) < MOST:
                self._seen.add(key)
            return True


_ONCE = _Once()


def quiet_repeats() -> None:
    """Drop repeated warnings of libraries from now on; call it again after importing a library."""
    for logger in (logging.getLogger(), *(logging.getLogger(name) for name in LIBRARIES)):
        for handler in logger.handlers:
            if _ONCE not in handler.filters:
                handler.addFilter(_ONCE)
    if not getattr(warnings.showwarning, "is_once", False) and not getattr(warnings, "_llmjobs_recording", False):
        _wrap_showwarning()


def _wrap_showwarning() -> None:
    """Check before a warning is shown, because the filter of :mod:`warnings` is reset whenever somebody changes it."""
    show = warnings.showwarning

    def show_once(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        if _ONCE.first(category.__name__, str(message)):
            show(message, category, filename, lineno, file, line)

    show_once.is_once = True  # type: ignore[attr-defined]
    warnings.showwarning = show_once
