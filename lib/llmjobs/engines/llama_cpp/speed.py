"""Time prefill and decode of a loaded GGUF file separately, as :class:`llmjobs.engines.speed.Speed` defines them."""

import time
from collections.abc import Sequence

from llmjobs.engines.llama_cpp.context import Context
from llmjobs.engines.llama_cpp.load import LoadedModel
from llmjobs.engines.speed import Run, Speed, measure_each


def measure_speed(
    loaded: LoadedModel, max_length: int, contexts: Sequence[int], *, rows: int, new_tokens: int, tries: int = 1
) -> list[Speed]:
    """Measure each context length; ``tries`` > 1 takes the median of that many. A recurrent model runs one row."""
    rows = min(rows, loaded.settings.sequences)

    def runs(length: int) -> list[Run]:
        context = Context(loaded.spec.name, loaded.model, loaded.settings, rows * (length + new_tokens))
        try:
            return [_once(context, loaded.vocabulary, length, rows, new_tokens) for _ in range(tries)]
        finally:
            context.close()

    return measure_each(contexts, runs, rows=rows, new_tokens=new_tokens, max_length=max_length)


def _once(context: Context, vocabulary: int, length: int, rows: int, new_tokens: int) -> Run:
    """Time made-up tokens that differ by row."""
    context.clear()
    first = max(min(vocabulary // 8, 1000), 1)
    tokens = [first + at * 7 % max(vocabulary - first, 1) for at in range(rows * length)]
    positions = list(range(length)) * rows
    members = [(row,) for row in range(rows) for _ in range(length)]
    ends = [place == length - 1 for place in positions]
    began = time.perf_counter()
    chosen = context.decode(tokens, positions, members, ends).argmax(-1).tolist()
    read = time.perf_counter()
    each = [(row,) for row in range(rows)]
    for step in range(new_tokens - 1):
        chosen = context.decode(chosen, [length + step] * rows, each, [True] * rows).argmax(-1).tolist()
    return read - began, time.perf_counter() - read
