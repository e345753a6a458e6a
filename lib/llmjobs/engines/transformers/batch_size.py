"""How many tokens a batch should have on this machine: time a few passes, and fit a line for the rest."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from llmjobs.engines.pass_time import CLEARLY_SLOWER, Budget, best_size, fit
from llmjobs.engines.transformers.device import free_memory, is_out_of_memory
from llmjobs.engines.transformers.first_layers import enough_layers, first_layers, layers_of
from llmjobs.engines.transformers.forward import Model, PackedForward, padded_logits
from llmjobs.engines.transformers.packed_attention import Causal, Cross, Layout
from llmjobs.engines.transformers.shapes import most_tokens as longest_input
from llmjobs.memory import memory_bytes

SEGMENT_TOKENS, PREFIX_TOKENS = 128, 512
"""Shape of a trial batch: each row's own tokens, and the kept ones before them, as in a few-shot question."""
CPU_SIZES = (256, 512, 1024, 2048, 4096)
GPU_SIZES = (1024, 2048, 4096, 8192, 16384, 32768)
USUAL = {"cpu": 1024, "cuda": 8192, "mps": 2048}
"""Used if nothing may be tried; what the trial usually finds."""
FIRST_TOKENS = 64
"""Tokens of the first pass. It is too small for a batch, so it shows the fixed cost of a pass."""
FEW_S, SHARE = 5.0, 0.1
"""A trial may take this many seconds, or this share of the questions' time, whichever is more."""
TWICE_S = 0.3
"""A quicker pass is timed twice, and the faster time counts."""
TRIAL_PASSES = 16
"""A trial reads about as much as this many of its first passes."""
MEMORY_SHARE = 0.25
"""Share of the free memory that a batch may take."""


def candidate_sizes(model: Model, unit_tokens: int | None = None, free_bytes: int | None = None) -> tuple[int, ...]:
    """Return the batch sizes to choose from: up to the first that holds a whole unit, and what memory allows.

    ``free_bytes``: the machine's free memory (default: all of it); a CUDA device is asked instead.
    """
    device = model.device.type
    sizes = CPU_SIZES if device == "cpu" else GPU_SIZES
    room = torch.cuda.mem_get_info()[0] if device == "cuda" else free_bytes or memory_bytes()
    most = MEMORY_SHARE * room / bytes_a_token(model)
    enough = next((size for size in sizes if unit_tokens is not None and size >= unit_tokens), sizes[-1])
    return tuple(size for size in sizes if size <= min(most, enough)) or sizes[:1]


def undisturbed_s() -> float:
    """Seconds that pass while this process's main thread runs or waits for something other than a processor.

    Other processes make a pass take several times as long, and unevenly, so its parts could not be separated. Linux
    reports how long a thread waited for a processor (``/proc/PID/schedstat``, second figure, in nanoseconds); elsewhere
    this is wall time.
    """
    now = time.perf_counter()
    with contextlib.suppress(OSError, ValueError, IndexError):
        return now - int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    return now


_SCHEDSTAT = Path("/proc/self/schedstat")


def bytes_a_token(model: Model) -> int:
    """Approximate bytes of a pass per token: hidden states, an MLP's inner ones, queries, keys and values."""
    config = model.config.get_text_config()
    hidden = int(getattr(config, "hidden_size", 0) or 1024)
    inner = getattr(config, "intermediate_size", None)
    return int((12 * hidden + 4 * (inner if isinstance(inner, int) else 4 * hidden)) * model.dtype.itemsize)


def measure_batch_tokens(
    model: Model,
    *,
    shared: bool = True,
    sizes: Sequence[int] | None = None,
    seconds: float = FEW_S,
    most_tokens: float = math.inf,
    study_tokens: int = 0,
    prefix_tokens: int = PREFIX_TOKENS,
    clock: Callable[[], float] | None = None,
) -> Budget:
    """Time a few passes and choose the smallest size whose tokens per second no larger one beats by 3 %.

    The result is measured, so it differs between runs: record it and plan a resumed unit with the recorded value.
    ``seconds``: no larger size is tried after that long, or after a tenth of what ``study_tokens`` will take. At most
    ``most_tokens`` are read. Sizes that were not tried follow from those that were. If passes are slow, the model's
    first layers stand for all. An out-of-memory error ends the search. Sizes are compared by ``clock``, by default
    :func:`undisturbed_s`; the returned times are those of the machine under its current load.
    """
    sizes = tuple(sizes or candidate_sizes(model))
    most = int(min(most_tokens, 1 << 30))
    prefix = min(prefix_tokens, most // 4) if shared else 0
    if len(sizes) == 1 or most < 3 * FIRST_TOKENS + prefix:
        why = "one batch holds a whole unit" if len(sizes) == 1 else "the study is too small for a trial"
        usual = USUAL.get(model.device.type, sizes[0])
        return Budget(max((size for size in sizes if size <= usual), default=sizes[0]), sizes[-1], None, why)
    trial = _Trial(model.device.type, most - prefix, clock or undisturbed_s)
    out_of_memory = False
    began, own = time.perf_counter(), undisturbed_s()
    with _trial_layers(model) as (scale, said):
        try:
            trial.search(_runner(model, shared, prefix), sizes, seconds, study_tokens, scale)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            out_of_memory = True
    free_memory()
    busy = 1.0 if clock else (time.perf_counter() - began) / max(undisturbed_s() - own, 1e-9)
    points = trial.points
    if not points:
        return Budget(max(SEGMENT_TOKENS, sizes[0] // 2), sizes[-1], None, "out of memory with the smallest batch")
    best = best_size(points, sizes)
    if out_of_memory:
        best = max(min(best, points[-1][0]) // 2, SEGMENT_TOKENS)
    tried = ", ".join(f"{size}" for size, _ in points)
    return Budget(best, sizes[-1], fit(points).scaled(scale * busy), f"passes of {tried} tokens timed{said}")


class _Trial:
    """The passes that were timed, and how many tokens may still be read."""

    def __init__(self, device: str, left: int, clock: Callable[[], float]) -> None:
        self.device, self.left, self.clock = device, left, clock
        self.points: list[tuple[int, float]] = []
        """Tokens and seconds."""

    def search(
        self, run: Callable[[int], None], sizes: Sequence[int], seconds: float, study_tokens: int, scale: float
    ) -> None:
        """Time one size after the other, until time or tokens are used up or larger sizes gain nothing."""
        begun = self.clock()
        run(min(FIRST_TOKENS, sizes[0]))
        self.left -= FIRST_TOKENS
        for step in _steps(sizes, self.left):
            size = step
            if size > self.left:
                return
            if len(self.points) == 1 and size * self.points[0][1] / self.points[0][0] > max(seconds, FEW_S):
                size = min(size, 2 * FIRST_TOKENS)  # enough for a line
            if len(self.points) > 1:
                whole = fit(self.points).scaled(scale).seconds(study_tokens, study_tokens / sizes[-1])
                if self.clock() - begun + fit(self.points[-2:]).seconds(size) > max(seconds, SHARE * whole):
                    return
            self.points.append((size, self._fastest(run, size)))
            best = max(n / took for n, took in self.points)
            if self.points[-1][0] / self.points[-1][1] < CLEARLY_SLOWER * best:
                return

    def _fastest(self, run: Callable[[int], None], size: int) -> float:
        """Return the seconds of the faster of two passes, or of one if it is long or no more may be read."""
        times: list[float] = []
        while not times or (len(times) == 1 and times[0] < TWICE_S and size <= self.left):
            begun = self.clock()
            run(size)
            if self.device == "cuda":
                torch.cuda.synchronize()
            times.append(self.clock() - begun)
            self.left -= size
        return max(min(times), 1e-9)


def _steps(sizes: Sequence[int], left: int) -> list[int]:
    """Return the sizes to time: a small pass, then larger ones; if few tokens are left, one that they allow."""
    first = FIRST_TOKENS if sizes[0] > FIRST_TOKENS else None
    steps = [size for size in (first, *sizes) if size is not None]
    if first and left < first + sizes[0]:
        steps = [first, (left - 2 * first) // SEGMENT_TOKENS * SEGMENT_TOKENS] if left >= 4 * first else [first]
    return steps


@contextmanager
def _trial_layers(model: Model) -> Iterator[tuple[float, str]]:
    """Leave only as many layers in the model as a trial needs; return the factor to all layers, and a description."""
    count = enough_layers(model, tokens=FIRST_TOKENS, passes=TRIAL_PASSES)
    found = layers_of(model) if count is not None else None
    whole = len(found[2]) if found else 0
    with first_layers(model, count) if found and count else nullcontext():
        yield (whole / count, f", on {count} of {whole} layers") if found and count else (1.0, "")


def _runner(model: Model, shared: bool, prefix_tokens: int) -> Callable[[int], None]:
    """Return a forward of ``size`` tokens in rows of 128, each read at its end, after a kept prefix if ``shared``."""
    packed = PackedForward(model)
    before = max(0, min(prefix_tokens, longest_input(model) - SEGMENT_TOKENS)) if shared else 0
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
