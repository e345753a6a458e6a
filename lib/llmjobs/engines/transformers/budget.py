"""How many tokens a batch should have on this machine: measured briefly, and kept for the next run."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from llmjobs import disk
from llmjobs.engines.transformers.device import free_memory, is_out_of_memory
from llmjobs.engines.transformers.forward import Model, PackedForward, padded_logits
from llmjobs.engines.transformers.lengths import most_tokens
from llmjobs.engines.transformers.packed_layout import Causal, Cross, Layout
from llmjobs.environment import describe_machine
from llmjobs.errors import RunFolderError

# How many tokens a batch should have on this machine: a short measurement.

SEGMENT_TOKENS, PREFIX_TOKENS = 128, 512
"""Of a trial batch: each row's own tokens, and the kept ones before them, as a few-shot question has them."""
CPU_SIZES = (256, 512, 1024, 2048, 4096)
GPU_SIZES = (1024, 2048, 4096, 8192, 16384, 32768)
ENOUGH_GAIN = 1.03
HOPELESS = 0.8
"""A size this much slower than the best ends the search; a little slower may be what else the machine does."""


def measure_batch_tokens(
    model: Model,
    *,
    shared: bool = True,
    seconds: float = 10.0,
    sizes: Sequence[int] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Return the smallest tried size whose tokens a second no larger one beats by 3 %.

    Measured, so it differs from run to run: record it and plan a resumed unit with the recorded value.
    ``seconds``: no larger size is tried after that long. Out of memory ends the search.
    """
    device = model.device.type
    sizes = sizes or (CPU_SIZES if device == "cpu" else GPU_SIZES)
    begun = clock()
    best, best_rate = sizes[0], 0.0
    try:
        run = _runner(model, shared)
        run(sizes[0])
        for size in sizes:
            rate = size / _fastest(run, size, device, clock)
            if rate > best_rate * ENOUGH_GAIN:
                best, best_rate = size, rate
            if clock() - begun > seconds or rate < best_rate * HOPELESS:
                break
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        best = max(SEGMENT_TOKENS, best // 2)
    free_memory()
    return best


def _fastest(run: Callable[[int], None], size: int, device: str, clock: Callable[[], float]) -> float:
    times = []
    for _ in range(2):
        begun = clock()
        run(size)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - begun)
    return min(times)


def _runner(model: Model, shared: bool) -> Callable[[int], None]:
    """Return a forward of ``size`` tokens in rows of 128, each read at its end, behind a kept prefix if ``shared``."""
    packed = PackedForward(model)
    before = max(0, min(PREFIX_TOKENS, most_tokens(model) - SEGMENT_TOKENS)) if shared else 0
    kept = {}
    if before:
        prefix = Layout(_made_up(before), tuple(range(before)), (Causal(0, before, 1),))
        kept = {0: packed.keys_values(prefix, {})}

    def run(size: int) -> None:
        count = max(1, size // SEGMENT_TOKENS)
        length = min(size, SEGMENT_TOKENS)
        rows = length * count
        ends = [length * (at + 1) - 1 for at in range(count)]
        tokens = _made_up(rows)
        if shared:
            positions = tuple(range(before, before + length)) * count
            cross = (Cross(0, rows, 0, before, 0, 0),) if before else ()
            packed.logits(Layout(tokens, positions, (Causal(0, length, count),), cross), ends, kept)
        else:
            inputs = [tokens[first : first + length] for first in range(0, rows, length)]
            padded_logits(model, inputs, ends, 0)

    return run


def _made_up(count: int) -> tuple[int, ...]:
    return tuple(at % 97 for at in range(count))


# The measured batch size is kept for a machine and model, so that two runs on one machine have the same batches.


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
