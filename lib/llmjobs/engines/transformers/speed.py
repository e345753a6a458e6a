"""Time prefill and decode of a loaded model separately, as :class:`llmjobs.engines.speed.Speed` defines them."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmjobs.engines.speed import Run, Speed, measure_each
from llmjobs.engines.transformers.decode_probe import probe_decoding
from llmjobs.engines.transformers.decoding import start


def measure_speed(
    model: Any, device: str, max_length: int, contexts: Sequence[int], *, rows: int, new_tokens: int, tries: int = 1
) -> list[Speed]:
    """Measure each context length after a warm-up; ``tries`` > 1 takes the median of that many.

    Decodes as ``eval`` does: on the model's path, one row at a time if it cannot batch.
    """
    path = probe_decoding(model).path
    rows = 1 if path in ("single", "whole") else rows

    def runs(length: int) -> list[Run]:
        return [_once(model, device, path, length, rows, new_tokens) for _ in range(tries)]

    return measure_each(contexts, runs, rows=rows, new_tokens=new_tokens, max_length=max_length)


def prompt(vocabulary: int, rows: int, length: int) -> Tensor:
    """Made-up tokens [rows, length] that differ from row to row; which ones does not matter for time."""
    first = max(min(vocabulary // 8, 1000), 1)
    return first + (torch.arange(rows * length).reshape(rows, length) * 7) % max(vocabulary - first, 1)


def _once(model: Any, device: str, path: str, length: int, rows: int, new_tokens: int) -> Run:
    """Time made-up tokens that differ by row."""
    tokens = prompt(model.config.get_text_config().vocab_size, rows, length)
    synchronize(device)
    began = time.perf_counter()
    steps = start(path, model, tokens.tolist())
    chosen = steps.logits.argmax(-1).tolist()
    first = time.perf_counter()
    for _ in range(new_tokens - 1):
        steps.advance(chosen)
        chosen = steps.logits.argmax(-1).tolist()
    return first - began, time.perf_counter() - first


def synchronize(device: str) -> None:
    """Wait until the device has finished all its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
