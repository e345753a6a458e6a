"""Results of trials of a model on this machine, cached for the next run. No torch.

An entry belongs to one model (its files' revision), the settings that it was loaded with, one machine, the versions of
the packages, and the engine's code. Anything else has a different entry, so results are never transferred.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from llmjobs import file_operations
from llmjobs.environment import describe_machine
from llmjobs.errors import RunFolderError

log = logging.getLogger(__name__)


FOLDER = "models"


def cache_folder() -> Path:
    """``LLMJOBS_CACHE``, otherwise ``llmjobs`` in the user's cache folder."""
    if own := os.environ.get("LLMJOBS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "llmjobs"


@cache
def engine_digest() -> str:
    """Digest of the engines' source, so that a changed build repeats the trials."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        total.update(f"{path.name}\0".encode() + path.read_bytes())
    return total.hexdigest()[:16]


class Known:
    """One model's entry. If it is damaged or somebody else's, nothing is known."""

    def __init__(self, **key: Any) -> None:
        """``key`` describes what is loaded and how: id, revision, device and its name, dtype, quantization, threads."""
        self.key = json.loads(json.dumps(dict(key) | describe_machine() | {"engine": engine_digest()}, sort_keys=True))
        self.digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:32]
        self.path = cache_folder() / FOLDER / f"{self.digest}.json"

    def get(self, name: str) -> dict[str, Any] | None:
        """Return what is stored as ``name``; None if nothing is stored or it cannot be read."""
        found = self._read().get(name)
        return found if isinstance(found, dict) else None

    def put(self, name: str, found: Mapping[str, Any]) -> None:
        """Store it. If the folder cannot be written, the next run repeats the trial."""
        try:
            whole = {"for": self.key, "found": self._read() | {name: dict(found)}}
            file_operations.make_folder(self.path.parent)
            file_operations.write_whole(self.path, json.dumps(whole, indent=1, sort_keys=True).encode())
        except (OSError, RunFolderError) as error:
            log.debug("%s: could not be saved: %s", self.path, error)

    def _read(self) -> dict[str, Any]:
        try:
            whole = json.loads(file_operations.read_whole(self.path))
            if whole["for"] != self.key:
                raise ValueError("it was written for other settings")
            return dict(whole["found"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.info("%s is ignored: %s", self.path, error)
            return {}
