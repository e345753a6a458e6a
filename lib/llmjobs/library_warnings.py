"""Shows each warning of a library once a process: bitsandbytes alone repeats one for every layer and question."""

import logging
import threading
import warnings
from typing import Any

LIBRARIES = ("transformers", "bitsandbytes", "accelerate", "torch", "datasets", "huggingface_hub", "tokenizers")
MOST = 1000
"""Different lines that are remembered."""


class _Once(logging.Filter):
    """Lets a library's line pass the first time."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or record.name.partition(".")[0] not in (*LIBRARIES, "py"):
            return True
        return self.first(record.name, record.getMessage())

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
    """Drop repeated warnings of libraries from here on; call it again once a library was imported."""
    for logger in (logging.getLogger(), *(logging.getLogger(name) for name in LIBRARIES)):
        for handler in logger.handlers:
            if _ONCE not in handler.filters:
                handler.addFilter(_ONCE)
    if not getattr(warnings.showwarning, "is_once", False) and not getattr(warnings, "_llmjobs_recording", False):
        _wrap_showwarning()


def _wrap_showwarning() -> None:
    """Ask before a warning is shown: the filter of :mod:`warnings` forgets whenever someone else changes it."""
    show = warnings.showwarning

    def show_once(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        if _ONCE.first(category.__name__, str(message)):
            show(message, category, filename, lineno, file, line)

    show_once.is_once = True  # type: ignore[attr-defined]
    warnings.showwarning = show_once
