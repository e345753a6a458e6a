"""How many tokens a batch should have on this machine: a short measurement."""

import time
from collections.abc import Callable, Sequence

import torch

from llmjobs.scoring.forward import Model, PackedForward, padded_logits
from llmjobs.scoring.layout import Causal, Cross, Layout
from llmjobs.scoring.lengths import most_tokens
from llmjobs.scoring.memory import free_memory, is_out_of_memory

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
