"""A GGUF file's speed and memory on this machine, from a second of computing (``python -m …llama_cpp.forecast``).

The file itself is loaded. It is mapped, so this takes seconds, and no stand-in would have its mix of number formats.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmjobs.engines.llama_cpp.context import CACHE_FORMATS, CPU_BATCH_TOKENS, GPU_BATCH_TOKENS
from llmjobs.engines.llama_cpp.gguf import FORMATS, Header
from llmjobs.machine.child import Reporter, serve
from llmjobs.memory import WATCH, resident

PREFILL_TOKENS, DECODE_CONTEXT = 64, 64
"""Tokens of the first pass; they are doubled until it takes long enough to be timed."""
MOST_TOKENS = 1024


def shapes_of(headers: list[Header], kv_cache: str) -> dict[str, Any]:
    """Sizes from the headers alone, as in ``EngineModule.forecast`` except for the device."""
    from llmjobs.engines.llama_cpp.load import context_length, quantization_of

    first = headers[0]
    weight_bytes = sum(one.size_bytes or 0 for header in headers for one in header.tensors)
    dtype, quantization = quantization_of(headers)
    return {
        "dtype": dtype if quantization == "none" else quantization,
        "parameters": sum(header.parameters for header in headers),
        "weight_bytes": weight_bytes,
        "layers": _whole(first.of_architecture("block_count")) or 1,
        "hidden": _whole(first.of_architecture("embedding_length")),
        "vocabulary": len(first.metadata.get("tokenizer.ggml.tokens") or ()),
        "max_length": context_length(first),
        "cache_token_bytes": cache_token_bytes(first, kv_cache),
        "memory_by_quantization": {"none": weight_bytes},
    }


def cache_token_bytes(header: Header, kv_cache: str) -> int | None:
    """Bytes of one token's keys and values in all layers; None if the header does not say.

    A model with a window, or with a state instead of keys and values, takes less.
    """
    heads = header.of_architecture("attention.head_count")
    kv_heads = header.of_architecture("attention.head_count_kv")
    width, layers = _whole(header.of_architecture("embedding_length")), _whole(header.of_architecture("block_count"))
    if kv_heads is None:
        kv_heads = heads
    if not isinstance(heads, int) or heads <= 0 or not width or not layers:
        return None
    head_width = width // heads
    keys = _whole(header.of_architecture("attention.key_length")) or head_width
    values = _whole(header.of_architecture("attention.value_length")) or head_width
    total = sum(kv_heads) if isinstance(kv_heads, list) else int(kv_heads) * layers
    stored = FORMATS[CACHE_FORMATS[kv_cache]]
    return total * (keys + values) * stored.size_bytes // stored.values


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def measure(task: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Seconds per token when reading and when writing, and the memory of a pass (runs in the child)."""
    from llmjobs.engines.llama_cpp.context import ContextSettings
    from llmjobs.engines.llama_cpp.library import load_weights, vocabulary_of

    before = resident()
    reporter.phase("load")
    model = load_weights("forecast", Path(task["path"]), int(task["gpu_layers"]), special=bool(task["special"]))
    reporter.phase("speed")
    settings = ContextSettings(int(task["threads"]), str(task["kv_cache"]), sequences=max(int(task["rows"]), 1))
    loaded_bytes = _anon()
    WATCH.begin()
    read_s, write_s = _timed(model, settings, vocabulary_of(model), int(task["rows"]), float(task["seconds"]))
    peaks = WATCH.peaks()
    return {
        "path": "shared",
        "runtime_bytes": before.rss_bytes,
        "runtime_anon_bytes": before.rss_bytes if before.anon_bytes is None else before.anon_bytes,
        "pass_bytes": max((peaks.anon_bytes or peaks.rss_bytes) - loaded_bytes, 0),
        "pass_s": 0.0,
        "token_s": read_s,
        "decode_s": write_s,
        "head_row_s": 0.0,
        "head_rows": 1,
        "batch_tokens": CPU_BATCH_TOKENS if not task["gpu_layers"] else GPU_BATCH_TOKENS,
        "threads": int(task["threads"]),
    }


def _anon() -> int:
    now = resident()
    return now.rss_bytes if now.anon_bytes is None else now.anon_bytes


def _timed(model: Any, settings: Any, vocabulary: int, rows: int, seconds: float) -> tuple[float, float]:
    """Seconds per token of a prompt, and per step of ``rows`` rows."""
    from llmjobs.engines.llama_cpp.context import Context

    context = Context("forecast", model, settings, MOST_TOKENS + rows * 8 + DECODE_CONTEXT)
    count, spent = PREFILL_TOKENS // 2, 0.0
    while spent < seconds / 2 and count < MOST_TOKENS:
        count *= 2
        context.clear()
        tokens = [at * 7 % vocabulary for at in range(count)]
        began = time.perf_counter()
        context.decode(tokens, range(count), [(0,)] * count, [*[False] * (count - 1), True])
        spent = time.perf_counter() - began
    steps, took = 0, 0.0
    while rows and steps < 8 and took < seconds:
        began = time.perf_counter()
        context.decode(
            [5 % vocabulary] * rows,
            [count + steps if row == 0 else steps for row in range(rows)],
            [(row,) for row in range(rows)],
            [True] * rows,
        )
        took += time.perf_counter() - began
        steps += 1
    context.close()
    return spent / count, took / max(steps, 1)


if __name__ == "__main__":
    serve(measure)
