"""Packed attention in few calls, for GPUs: all segments at once, then a call for each level of sharing.

On a CPU a call per segment costs microseconds; on a GPU thousands of launches would dominate the time. torch's
variable-length flash attention takes many ranges of queries and keys in one launch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmjobs.engines.transformers.packed_layout import Cross, Layout

Kernel = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Ranges:
    """Pairs of query and key ranges: where each begins in the two packed tensors, and the longest of each."""

    query_offsets: Tensor
    key_offsets: Tensor
    max_queries: int
    max_keys: int


@dataclass(frozen=True)
class Level:
    """Shared segments with separate children: rows of queries, and of keys (None: a whole kept prefix)."""

    query_rows: Tensor
    key_rows: Tensor | None
    prefix: int
    ranges: Ranges


@dataclass(frozen=True)
class VarlenLayout:
    """A layout in the form of the variable-length kernel."""

    own: Ranges
    levels: tuple[Level, ...]


def varlen_layout(layout: Layout, device: torch.device | str) -> VarlenLayout:
    """Build the index tensors once for all layers of a forward."""
    lengths = [part.length for part in layout.causal for _ in range(part.count)]
    levels: list[list[Cross]] = []
    for part in sorted(layout.cross, key=lambda one: (one.prefix < 0, one.first)):
        fitting = (one for one in levels if part.prefix < 0 and one[-1].prefix < 0 and one[-1].last <= part.first)
        level = next(fitting, None)
        if level is None:
            levels.append([part])
        else:
            level.append(part)
    return VarlenLayout(_ranges(lengths, lengths, device), tuple(_level(level, device) for level in levels))


def _level(parts: Sequence[Cross], device: torch.device | str) -> Level:
    prefix = parts[0].prefix
    queries, keys = [(one.first, one.last) for one in parts], [(one.key_first, one.key_last) for one in parts]
    ranges = _ranges([last - first for first, last in queries], [last - first for first, last in keys], device)
    return Level(_rows(queries, device), None if prefix >= 0 else _rows(keys, device), prefix, ranges)


def _rows(ranges: Sequence[tuple[int, int]], device: torch.device | str) -> Tensor:
    return torch.cat([torch.arange(first, last) for first, last in ranges]).to(device)


def _ranges(queries: Sequence[int], keys: Sequence[int], device: torch.device | str) -> Ranges:
    return Ranges(_starts(queries, device), _starts(keys, device), max(queries), max(keys))


def _starts(lengths: Sequence[int], device: torch.device | str) -> Tensor:
    return torch.nn.functional.pad(torch.tensor(lengths).cumsum(0), (1, 0)).to(device, torch.int32)


def varlen_fits(query: Tensor, value: Tensor) -> bool:
    """Whether torch's flash attention takes these tensors: CUDA, half precision, heads of at most 256."""
    half = query.dtype in (torch.float16, torch.bfloat16)
    fits = half and query.shape[-1] == value.shape[-1] <= 256 and query.shape[-1] % 8 == 0
    return bool(query.is_cuda and fits and torch.cuda.get_device_capability(query.device)[0] >= 8)


def flash_varlen(
    query: Tensor, key: Tensor, value: Tensor, ranges: Ranges, scale: float, causal: bool, window: int | None
) -> tuple[Tensor, Tensor]:
    """Return outputs [rows, heads, size] and log-sum-exps [heads, rows] of torch's flash attention."""
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        query, key, value, ranges.query_offsets, ranges.key_offsets, ranges.max_queries, ranges.max_keys,
        0.0, causal and window is None, False, scale=scale,
        window_size_left=-1 if window is None else window - 1, window_size_right=0 if causal else -1,
    )  # fmt: skip
    return out, lse


def varlen_attention(
    layout: VarlenLayout,
    states: tuple[Tensor, Tensor, Tensor],
    kept: Callable[[int], tuple[Tensor, Tensor]],
    scale: float,
    window: int | None,
    kernel: Kernel = flash_varlen,
) -> tuple[Tensor, Tensor]:
    """Return outputs [heads, rows, size] and log-sum-exps [heads, rows] (fp32), every part merged.

    ``states``: query, key, value [1, heads, rows, size]; ``kept`` gives a kept prefix's key and value in the same form.
    ``window`` holds inside a segment; the caller keeps windows that reach into earlier parts away from here.
    """
    query, key, value = (one[0].transpose(0, 1) for one in states)
    own, lse = kernel(query, key, value, layout.own, scale, True, window)
    out = own.transpose(0, 1).float()
    for level in layout.levels:
        if level.key_rows is None:
            keys, values = (one[0].transpose(0, 1) for one in kept(level.prefix))
        else:
            keys, values = key[level.key_rows], value[level.key_rows]
        rows = level.query_rows
        found, found_lse = kernel(query[rows], keys, values, level.ranges, scale, False, None)
        before = lse[:, rows]
        weight = torch.sigmoid(found_lse - before)[..., None]
        out[:, rows] = torch.lerp(out[:, rows], found.transpose(0, 1).float(), weight)
        lse[:, rows] = torch.logaddexp(before, found_lse)
    return out, lse
