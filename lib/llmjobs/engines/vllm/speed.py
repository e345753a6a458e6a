"""Time prefill and decode of a model in vLLM (:class:`llmjobs.engines.speed.Speed` says what is what)."""

import time
from collections.abc import Sequence

from llmjobs.engines.speed import Run, Speed, measure_each
from llmjobs.engines.vllm.load import LoadedModel


def measure_speed(
    loaded: LoadedModel, max_length: int, contexts: Sequence[int], *, rows: int, new_tokens: int, tries: int = 1
) -> list[Speed]:
    """Measure each context length; ``tries`` > 1 takes the median of that many.

    vLLM begins to decode rows while it still reads others. So the prompts are read once for one token, and once for
    all; the difference is the time of decoding.
    """
    loaded.owner = None

    def runs(length: int) -> list[Run]:
        found = []
        for _ in range(tries):
            first = _seconds(loaded, length, rows, 1)
            whole = _seconds(loaded, length, rows, new_tokens) if new_tokens > 1 else first
            found.append((first, max(whole - first, 1e-9)))
        return found

    return measure_each(contexts, runs, rows=rows, new_tokens=new_tokens, max_length=max_length)


def _seconds(loaded: LoadedModel, length: int, rows: int, new_tokens: int) -> float:
    """Seconds of ``rows`` made-up prompts that differ, from an empty cache, greedy, without an end."""
    size = loaded.vocabulary
    prompts = [[(row * length + at * 7) % size for at in range(length)] for row in range(rows)]
    how = {"temperature": 0.0, "max_tokens": new_tokens, "min_tokens": new_tokens, "ignore_eos": True}
    loaded.llm.reset_prefix_cache()
    began = time.perf_counter()
    loaded.run(prompts, [how | {"detokenize": False}] * rows)
    return time.perf_counter() - began
