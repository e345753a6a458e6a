"""What a model would weigh and how fast it would be here, unrun (``python -m llmjobs.engines.transformers.forecast``).

Sizes come from the config; speed and the memory of a pass from a few layers of the model's shape with made-up weights,
at its precision, through the scoring code that will run.
"""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from llmjobs.engines.transformers.checkpoint import checked_config
from llmjobs.engines.transformers.device import dtype_remark, resolve_device, resolve_dtype, set_threads
from llmjobs.engines.transformers.lengths import DEFAULT_LENGTH
from llmjobs.engines.transformers.shapes import model_shapes, on_meta, whole_weight_bytes
from llmjobs.engines.transformers.stand_in import (
    LARGE_LAYER_BYTES,
    Unit,
    build,
    decode_seconds,
    head_seconds,
    made_up_unit,
    scoring_path,
    seconds_a_token,
)
from llmjobs.machine.child import Reporter, serve
from llmjobs.memory import current_anon_bytes
from llmjobs.process_memory import WATCH, Resident, resident

DECODE_CONTEXT = 256


def forecast(task: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Return ``shapes``, and ``speed`` with the memory of a pass where the stand-in could be built."""
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    reporter.phase("config")
    remote = bool(task["trust_remote_code"])
    config = checked_config(task["name"], task["source"], task["revision"], trust_remote_code=remote)
    quantization = task["quantization"]
    device = resolve_device(task["device"], quantization)
    dtype = resolve_dtype(task["dtype"], device)
    model_on_meta = on_meta(config, dtype, remote)
    shapes = model_shapes(config, model_on_meta, dtype, quantization)
    others = {other: whole_weight_bytes(model_on_meta, other) for other in ("none", "8bit", "4bit")}
    place = {"device": device, "dtype": str(dtype).removeprefix("torch."), "device_memory_bytes": _room(device)}
    place["remark"] = dtype_remark(dtype, device)
    reporter.report(shapes=shapes.to_record() | place | {"memory_by_quantization": others})
    if not task.get("unit"):
        return {}
    set_threads(task["threads"])
    base = _runtime(quantization)
    reporter.phase("speed")
    unit = Unit(**task["unit"])
    layer_bytes = max(shapes.parameters // max(shapes.layers, 1), 1) * 4
    layers = 1 if layer_bytes > LARGE_LAYER_BYTES else min(2, shapes.layers)
    model = build(config, layers, quantization, dtype, device, remote)
    plan = made_up_unit(unit, shapes.max_length or DEFAULT_LENGTH)
    before = _in_use(device)  # the stand-in's weights are made up: none of them lies in a file
    token_s = seconds_a_token(model, plan, device, task["seconds"]) / layers
    kept = plan.peak_cache_tokens * (shapes.cache_token_bytes or 0) * layers // max(shapes.layers, 1)
    passing = max(_peak(device) - before - kept, 0)
    rows = max(len(plan.batches[0].docs), 1)
    return {
        "path": scoring_path(model),
        "runtime_bytes": base.rss_bytes,
        "runtime_anon_bytes": base.rss_bytes if base.anon_bytes is None else base.anon_bytes,
        "pass_bytes": passing,
        "layer_token_s": token_s,
        "decode_layer_s": decode_seconds(model, device, task["rows"], DECODE_CONTEXT) / layers if task["rows"] else 0.0,
        "head_row_s": head_seconds(shapes.hidden, shapes.vocabulary, rows, dtype, device) / rows,
        "head_rows": rows,
        "threads": torch.get_num_threads(),
    }


def _runtime(quantization: str) -> Resident:
    """Memory of a process that has everything imported that an eval needs, and no model."""
    import llmjobs.engines.transformers.generate  # noqa: F401
    import llmjobs.engines.transformers.load  # noqa: F401

    if quantization != "none":
        import bitsandbytes  # noqa: F401
    return resident()


def _room(device: str) -> int | None:
    """Memory of the device, where it has its own."""
    return int(torch.cuda.mem_get_info(0)[1]) if device == "cuda" else None


def _in_use(device: str) -> int:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    WATCH.begin()
    return current_anon_bytes()


def _peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    peaks = WATCH.peaks()
    return peaks.rss_bytes if peaks.anon_bytes is None else peaks.anon_bytes


if __name__ == "__main__":
    serve(forecast)
