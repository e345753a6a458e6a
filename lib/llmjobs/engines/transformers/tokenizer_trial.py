"""Try a tokenizer in a child process before loading it here, because its regular expressions and decoder are programs.

A pattern that backtracks endlessly, or a decoder that multiplies its text, then ends in one line instead of a process
that hangs or is killed for memory. What still fails later, in this process, also becomes one line.
"""

import contextlib
import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmjobs.engines.transformers.tokenizer_trial_child import LIMIT, MEMORY, ROOM_BYTES
from llmjobs.errors import ModelError
from llmjobs.redaction import without_secrets

TRIAL_S = 60.0
"""The largest tokenizers (35 MiB) take about two seconds."""
CHILD = "llmjobs.engines.transformers.tokenizer_trial_child"
FILE = "tokenizer.json"
REMEDY = "use the tokenizer files from the original model, or another model"


def try_tokenizer(who: str, folder: Path) -> None:
    """Encode and decode some text with ``tokenizer.json`` in a limited process; does nothing if there is none.

    Raises:
        ModelError: it takes too long, too much memory, or crashes.

    """
    path = folder / FILE
    if not path.is_file():
        return
    found = path.stat()
    if problem := _trial(str(path), found.st_size, found.st_mtime_ns):
        raise ModelError(f"{who}: {path} {problem}; {REMEDY}")


@lru_cache(maxsize=64)
def _trial(path: str, _size: int, _changed_ns: int) -> str | None:
    """The fault of a tokenizer; tried once for each version of the file."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", CHILD, path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**without_secrets(), "TOKENIZERS_PARALLELISM": "false"},
    )
    try:
        out, _ = child.communicate(timeout=TRIAL_S)
    except subprocess.TimeoutExpired:
        return f"took longer than {TRIAL_S:g} s to encode a short text and was stopped"
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, 9)
        child.wait()
        if child.stdout:
            child.stdout.close()
    return _problem_of(out, child.returncode)


def _problem_of(out: bytes, code: int) -> str | None:
    try:
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        return f"crashed while encoding a short text (exit status {code})"
    kind = answer.get("error")
    if kind is None:
        return None
    if kind == MEMORY:
        return f"takes more than {ROOM_BYTES >> 20} MiB of memory for a short text"
    if kind == LIMIT:
        return "has a regular expression that takes too long on a short text (catastrophic backtracking)"
    return f"cannot be used: {str(answer.get('message', ''))[:200]}"


def bound_tokenizer(tokenizer: Any, who: str) -> Any:
    """Turn crashes inside ``tokenizer`` into one line; return the tokenizer.

    The tokenizers library panics if its regular expressions give up, with an exception that is not an ``Exception``.
    """
    for name in ("_encode_plus", "_decode"):
        if callable(inner := getattr(tokenizer, name, None)):
            setattr(tokenizer, name, _Guarded(inner, who))
    return tokenizer


class _Guarded:
    """Calls a method of a tokenizer and turns its panics into :class:`ModelError`."""

    def __init__(self, inner: Any, who: str) -> None:
        self._inner, self._who = inner, who

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._inner(*args, **kwargs)
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            raise ModelError(
                f"{self._who}: its tokenizer crashed on a text (a regular expression that takes too long, or a "
                f"faulty decoder); {REMEDY}"
            ) from None
