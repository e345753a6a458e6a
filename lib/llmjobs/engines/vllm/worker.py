"""What runs inside vLLM's worker, which may be another process: what was loaded, read from its layers."""

from collections import Counter
from typing import Any

import torch


def describe(worker: Any) -> dict[str, Any]:
    """Architecture, device, number format, kinds of layers and attention of a loaded worker, as plain values."""
    runner = worker.model_runner
    model = worker.get_model()
    floats: Counter[str] = Counter()
    elements = size = empty = 0
    for weight in {weight.data_ptr() or id(weight): weight for weight in model.parameters()}.values():
        elements += weight.numel()
        size += weight.numel() * weight.element_size()
        empty += weight.numel() == 0
        if weight.is_floating_point():
            floats[str(weight.dtype).removeprefix("torch.")] += max(weight.numel(), 1)
    methods = Counter(type(layer.quant_method).__name__ for layer in model.modules() if hasattr(layer, "quant_method"))
    return {
        "architecture": type(model).__name__,
        "device": str(worker.device.type),
        "dtype": floats.most_common(1)[0][0] if floats else "none",
        "elements": elements,
        "bytes": size,
        "packed": bool(empty),
        "methods": dict(methods),
        "attention": sorted(_attention(runner)),
        "kv_cache": sorted(_formats(getattr(runner, "kv_caches", None))),
        "threads": torch.get_num_threads(),
    }


def _attention(runner: Any) -> set[str]:
    found = set()
    for groups in getattr(runner, "attn_groups", None) or ():
        for group in groups:
            found.add(str(group.backend.get_name()))
    return found


def _formats(caches: Any) -> set[str]:
    """Number formats of the keys and values."""
    if isinstance(caches, torch.Tensor):
        return {str(caches.dtype).removeprefix("torch.")}
    if isinstance(caches, dict):
        caches = list(caches.values())
    return {name for one in caches or () for name in _formats(one)} if isinstance(caches, list | tuple) else set()
