"""The measured batch size is kept for a machine and model, so that two runs on one machine have the same batches."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmjobs.environment import describe_machine
from llmjobs.errors import RunFolderError
from llmjobs.runfolder import disk
from llmjobs.scoring.budget import measure_batch_tokens


def cache_folder() -> Path:
    """``LLMJOBS_CACHE``, else ``llmjobs`` in the user's cache folder."""
    if own := os.environ.get("LLMJOBS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "llmjobs"


def batch_tokens_for(model: Any, key: Mapping[str, Any], *, shared: bool) -> int:
    """Tokens of a batch for ``model``: measured on this machine once, then read from the cache.

    ``key`` says what was loaded (weights, precision, device, threads). A cache that cannot be written is no error.
    """
    whole = json.dumps([dict(key), describe_machine()], sort_keys=True)
    path = cache_folder() / "batch_tokens" / f"{hashlib.sha256(whole.encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if isinstance(known := json.loads(path.read_bytes())["batch_tokens"], int) and known > 0:
            return known
    measured = measure_batch_tokens(model, shared=shared)
    with contextlib.suppress(OSError, RunFolderError):
        disk.make_folder(path.parent)
        disk.write_whole(path, json.dumps({"batch_tokens": measured, "for": json.loads(whole)}, indent=1).encode())
    return measured
