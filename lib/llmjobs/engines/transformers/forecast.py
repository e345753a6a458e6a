"""The size and speed of a model that is not run (``python -m llmjobs.engines.transformers.forecast``).

Sizes come from the config. Speed and the memory of a pass come from a few layers of the model's shape with made-up
weights, at its precision, using the scoring code that will run. When the time for measuring is up, the rest is
extrapolated.
"""

import logging
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch

from llmjobs.engines.pass_time import PassTime
from llmjobs.engines.protocol import DEFAULT_LENGTH
from llmjobs.engines.transformers.batch_size import PREFIX_TOKENS, candidate_sizes, measure_batch_tokens
from llmjobs.engines.transformers.device import (
    device_name,
    dtype_remark,
    resolve_device,
    resolve_dtype,
    set_threads,
)
from llmjobs.engines.transformers.fast_path_trials import FEW_TOKENS
from llmjobs.engines.transformers.first_layers import TRIED_TOKENS, pass_of
from llmjobs.engines.transformers.made_up_layers import (
    DECODED,
    LARGE_LAYER_BYTES,
    Unit,
    build,
    bytes_a_second,
    decode_seconds,
    first_path,
    first_with_keys,
    head_seconds,
    made_up_unit,
    score_once,
    scoring_path,
)
from llmjobs.engines.transformers.model_files import checked_config
from llmjobs.engines.transformers.shapes import Shapes, as_stored_bytes, model_shapes, on_meta, whole_weight_bytes
from llmjobs.hub.repositories import cached_snapshot
from llmjobs.machine.child import Reporter, serve
from llmjobs.memory import WATCH, Resident, available_bytes, current_anon_bytes, resident
from llmjobs.quantization import METHODS, NONE, names
from llmjobs.quantization.stored import DEQUANTIZED, Place, stored_as

DECODE_CONTEXT, SHORTEST_CONTEXT = 256, 8
SMALLEST_BATCH = 32
HEAD_ROWS = 8


def forecast(task: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Return ``shapes``, and ``speed`` with the memory of a pass if the stand-in could be built."""
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
    others = {other: whole_weight_bytes(model_on_meta, other) for other in names()}
    stored = stored_as(config.to_dict())
    if stored is not None:
        here = Place.here(device)
        size = as_stored_bytes(model_on_meta, stored, here)
        shapes, others, quantization = replace(shapes, weight_bytes=size), {quantization: size}, NONE
        name = stored.label + (DEQUANTIZED if stored.is_unpacked(here) else "")
    place = {"device": device, "dtype": str(dtype).removeprefix("torch."), "device_memory_bytes": _room(device)}
    place |= {"remark": dtype_remark(dtype, device), "device_name": device_name(device)}
    if stored is not None:
        place |= {"quantization": name, "remark": place["remark"] or _speed_remark(name)}
    reporter.report(shapes=shapes.to_record() | place | {"memory_by_quantization": others})
    if not task.get("unit"):
        return {}
    threads = set_threads(task["threads"])
    base = _runtime(quantization)
    start_s = time.time() - psutil.Process().create_time()
    reporter.phase("speed")
    left = _Deadline(float(task["seconds"]))
    unit = Unit(**task["unit"])
    layer_bytes = max(shapes.parameters // max(shapes.layers, 1), 1) * 4
    layers = min(max(1 if layer_bytes > LARGE_LAYER_BYTES else 2, first_with_keys(config)), shapes.layers)
    times = shapes.layers / layers
    """Factor from a pass through the stand-in's layers to one through all layers."""
    model, quantize_s = build(config, layers, quantization, dtype, device, remote)
    path = first_path(model)
    prefix = _affordable_prefix(model, unit, left)
    before = _in_use(device)  # the stand-in's weights are made up, so none of them is in a file
    budget = measure_batch_tokens(
        model,
        shared=path == "shared",
        sizes=candidate_sizes(model, None, available_bytes()),
        seconds=left.share(0.4),
        prefix_tokens=prefix,
    )
    line = budget.time or PassTime(0.0, 0.0)
    given = replace(unit, prefix_tokens=prefix)
    fixed, each = _pass_bytes(model, path, given, shapes, layers, line, left, before, device)
    if line.seconds(FEW_TOKENS, passes=20) < left.share(0.5):
        path = scoring_path(model)
    rows = int(task["rows"])
    context = min(DECODE_CONTEXT, int(left.share(0.5) / max(line.token_s * rows, 1e-9))) if rows else 0
    decode_s = line.seconds(rows)
    if rows and context >= SHORTEST_CONTEXT and line.seconds(rows * DECODED, passes=DECODED) < left.share(0.5):
        decode_s = decode_seconds(model, device, rows, context) or decode_s
    read = bytes_a_second(_weight_files(task))
    return {
        "path": path,
        "runtime_bytes": base.rss_bytes,
        "runtime_anon_bytes": base.rss_bytes if base.anon_bytes is None else base.anon_bytes,
        "pass_bytes": fixed,
        "pass_token_bytes": each,
        **line.scaled(times).to_builtin(),
        "batch_tokens": budget.batch_tokens,
        "decode_s": decode_s * times if rows else 0.0,
        "rows": rows,
        "head_row_s": head_seconds(shapes.hidden, shapes.vocabulary, HEAD_ROWS, dtype, device) / HEAD_ROWS,
        "threads": threads,
        "start_s": start_s,
        "quantize_s": quantize_s * times,
        "read_bytes_s": read[0] if read else None,
        "hash_bytes_s": read[1] if read else None,
        "measured_s": left.spent_s,
    }


def _speed_remark(name: str) -> str | None:
    if name.endswith(DEQUANTIZED):
        return None
    return f"its speed was measured on unquantized layers of the same shape; quantized as {name} it may be slower"


class _Deadline:
    """The remaining time for measuring; what does not fit is extrapolated."""

    def __init__(self, seconds: float) -> None:
        self._begun, self._seconds = time.monotonic(), seconds

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._begun

    def share(self, share: float) -> float:
        """Return a share of the remaining time."""
        return max(share * (self._seconds - self.spent_s), 0.0)


def _affordable_prefix(model: Any, unit: Unit, left: _Deadline) -> int:
    """Return how long a prefix the trial can afford to read first; if tokens are slow, a short one."""
    pass_of(model, TRIED_TOKENS)
    began = time.monotonic()
    pass_of(model, TRIED_TOKENS)
    token_s = (time.monotonic() - began) / TRIED_TOKENS
    return min(unit.prefix_tokens, PREFIX_TOKENS, int(left.share(0.2) / max(token_s, 1e-9)))


def _pass_bytes(
    model: Any,
    path: str,
    unit: Unit,
    shapes: Shapes,
    layers: int,
    line: PassTime,
    left: _Deadline,
    before: int,
    device: str,
) -> tuple[int, int]:
    """Return what a pass takes beside the weights and what is kept: a fixed number of bytes, and bytes a token.

    From the peaks of a small batch and of one that is as large as the time allows.
    """
    tokens = unit.batch_tokens
    while tokens > SMALLEST_BATCH and line.seconds(2 * tokens + unit.prefix_tokens) > left.share(0.5):
        tokens //= 2
    points = []
    small = Unit(prefix_tokens=0, question_tokens=SMALLEST_BATCH // 2, batch_tokens=SMALLEST_BATCH)
    for one in (small, replace(unit, batch_tokens=tokens)):
        plan = made_up_unit(one, shapes.max_length or DEFAULT_LENGTH)
        score_once(model, plan, path)
        kept = plan.peak_cache_tokens * (shapes.cache_token_bytes or 0) * layers // max(shapes.layers, 1)
        points.append((plan.largest_pass, max(_peak(device) - before - kept, 0)))
        before = _in_use(device)
    (few, less), (many, more) = points
    each = max(more - less, 0) // (many - few) if many > few else 0
    return max(max(less, more) - each * max(few, many), 0), each


def _weight_files(task: Mapping[str, Any]) -> list[Path]:
    """The model's weight files on this machine."""
    folder = Path(task["source"]) if task["revision"] is None else None
    folder = folder or cached_snapshot("model", task["source"], task["revision"])
    return sorted(folder.glob("*.safetensors"))[:1] if folder else []


def _runtime(quantization: str) -> Resident:
    """Memory of a process that has imported everything that an eval needs, without a model."""
    import llmjobs.engines.transformers.generate  # noqa: F401
    import llmjobs.engines.transformers.load  # noqa: F401

    if quantization in METHODS:
        METHODS[quantization].require()
    return resident()


def _room(device: str) -> int | None:
    """Memory of the device, if it is separate."""
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
