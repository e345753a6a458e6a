"""The journal of paid calls: each finished call is on disk before its answer is used, so no call is paid twice."""

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmjobs.work.journal import Journal, encode, read_lines

CALLS = "calls.jsonl"


Call = dict[str, Any]


def call_key(request: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides a call."""
    return hashlib.sha256(encode(request)).hexdigest()[:32]


class CallJournal:
    """The finished calls of one unit; safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        """Read the journal and cut off an incomplete last line."""
        path = folder / CALLS
        self.known: dict[str, Call] = {}
        end = 0
        if path.exists():
            for _, end, call in read_lines(path, allow_torn=True):  # noqa: B007 - resume at the last end
                self._know(str(call["key"]), call)
        self._journal = Journal(path, end)
        self._lock = threading.Lock()

    def key(self, request: Mapping[str, Any]) -> str:
        """As :func:`call_key`."""
        return call_key(request)

    def find(self, key: str) -> Call | None:
        """A call that gave an answer, or None."""
        with self._lock:
            return self.known.get(key)

    def add(self, key: str, call: Mapping[str, Any]) -> None:
        """Bring a request that ended to the disk."""
        with self._lock:
            line = {"key": key, **call}
            self._journal.append([line])
            self._know(key, line)

    def _know(self, key: str, call: Call) -> None:
        if "failed" not in call and "error" not in call:  # ``error`` is from runs that did not repeat failed calls
            self.known[key] = call

    def close(self) -> None:
        """Close the file."""
        self._journal.close()


def spent_calls(folder: Path) -> list[Call]:
    """Every finished request below a folder."""
    return [call for path in sorted(folder.rglob(CALLS)) for _, _, call in read_lines(path, allow_torn=True)]
