"""How many tokens a batch should have on this machine: a short measurement."""

import time
from collections.abc import Callable, Sequence

import torch

from llmjobs.scoring.forward import Model, PackedForward, padded_logits
from llmjobs.scoring.layout import Causal, Layout
from llmjobs.scoring.memory import free_memory, is_out_of_memory

SEGMENT_TOKENS = 128
CPU_SIZES = (256, 512, 1024, 2048, 4096)
GPU_SIZES = (1024, 2048, 4096, 8192, 16384, 32768)
ENOUGH_GAIN = 1.03


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
    run = _runner(model, shared)
    try:
        run(sizes[0])
        for size in sizes:
            rate = size / _fastest(run, size, device, clock)
            if rate > best_rate * ENOUGH_GAIN:
                best, best_rate = size, rate
            if clock() - begun > seconds or rate < best_rate / ENOUGH_GAIN:
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
    """Return a forward of ``size`` tokens in rows of 128, each read at its end."""
    packed = PackedForward(model)

    def run(size: int) -> None:
        count = max(1, size // SEGMENT_TOKENS)
        length = min(size, SEGMENT_TOKENS)
        ends = [length * (at + 1) - 1 for at in range(count)]
        tokens = tuple(at % 97 for at in range(length * count))
        if shared:
            layout = Layout(tokens, tuple(range(length)) * count, (Causal(0, length, count),))
            packed.logits(layout, ends, {})
        else:
            inputs = [tokens[first : first + length] for first in range(0, len(tokens), length)]
            padded_logits(model, inputs, ends, 0)

    return run
