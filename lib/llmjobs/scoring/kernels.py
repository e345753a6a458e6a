"""One attention call that also gives its log-sum-exp.

By torch's flash attention where it can, by matrix products elsewhere.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

MAX_SCORES = 1 << 26
"""The most attention scores that the matrix-product path holds at once (fp32: 256 MiB)."""


HALF_KEYS = 64
HALF_CAUSAL_KEYS = 320
"""From how many keys on two matrix products beat the CPU's flash attention in half precision."""
HALF_BLOCK = 128
"""Queries of causal attention in one product."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a layer asks for: the scale of q·k, its sliding window in tokens, its soft cap on scores."""

    scale: float
    window: int | None = None
    softcap: float | None = None


def attend(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    causal: bool = False,
    distance: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return outputs [batch, heads, queries, size] and log-sum-exps [batch, heads, queries] (fp32).

    Key and value may have fewer heads (grouped queries). ``causal``: query i sees keys 0 … i, as many keys
    as queries. ``distance`` [queries]: how far each query stands after key 0; needed for a window, not with
    ``causal``. A query that sees no key gives 0 and -inf.
    """
    window = _window(call, query, key, distance)
    if window is None and call.softcap is None and _flash_fits(query, value):
        if query.dtype != torch.float32 and key.shape[2] >= (HALF_CAUSAL_KEYS if causal else HALF_KEYS):
            return _half_products(call, query, key, value, causal)
        return _flash_cpu(call, query, key, value, causal)
    step = max(1, MAX_SCORES // (query.shape[0] * query.shape[1] * key.shape[2]))
    parts = []
    for first in range(0, query.shape[2], step):
        rows = torch.arange(first, min(first + step, query.shape[2]), device=query.device)
        seen = _seen(key.shape[2], rows if causal else _at(distance, rows), window, causal)
        parts.append(_products(call, query[:, :, rows], key, value, seen))
    return torch.cat([part[0] for part in parts], 2), torch.cat([part[1] for part in parts], 2)


def _window(call: Call, query: Tensor, key: Tensor, distance: Tensor | None) -> int | None:
    """Return the window where it hides a key from a query."""
    if call.window is None:
        return None
    farthest = query.shape[2] - 1 if distance is None else int(distance.max())
    return call.window if farthest >= call.window else None


def _at(distance: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if distance is None else distance[rows]


def _seen(keys: int, distance: Tensor | None, window: int | None, causal: bool) -> Tensor | None:
    """Return which keys each query sees [queries, keys], or None for all."""
    if distance is None or not (causal or window):
        return None
    behind = distance[:, None] - torch.arange(keys, device=distance.device)
    seen = behind >= 0
    return seen & (behind < window) if window else seen


def _flash_fits(query: Tensor, value: Tensor) -> bool:
    return query.device.type == "cpu" and query.shape[-1] == value.shape[-1]


def _flash_cpu(call: Call, query: Tensor, key: Tensor, value: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Run grouped queries as a batch over views of the same keys, or, in a batch, over copies of them."""
    batch, heads, queries, size = query.shape
    groups = heads // key.shape[1]
    if groups > 1 and batch == 1:
        query = query[0].unflatten(0, (key.shape[1], groups)).transpose(0, 1)
        key, value = key.expand(groups, -1, -1, -1), value.expand(groups, -1, -1, -1)
    elif groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, scale=call.scale
    )
    if groups > 1 and batch == 1:
        out = out.transpose(0, 1).reshape(1, heads, queries, size)
        lse = lse.transpose(0, 1).reshape(1, heads, queries)
    return out, lse


def _products(call: Call, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention by two matrix products; softmax in fp32 as transformers' eager attention does."""
    groups = query.shape[1] // key.shape[1]
    grouped = query.unflatten(1, (key.shape[1], groups))
    scores = (grouped @ key[:, :, None].transpose(-1, -2)).float() * call.scale
    if call.softcap is not None:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    lse = torch.logsumexp(scores, -1)
    weights = torch.exp(scores - lse.nan_to_num(neginf=0.0)[..., None])
    out = weights.to(value.dtype) @ value[:, :, None]
    return out.flatten(1, 2), lse.flatten(1, 2)


def _half_products(call: Call, query: Tensor, key: Tensor, value: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Attend a head and a block of queries at a time, so that the scores stay in the processor's cache."""
    batch, heads, queries, _ = query.shape
    groups = heads // key.shape[1]
    step = HALF_BLOCK if causal else queries
    hidden = torch.ones(step, step, dtype=torch.bool, device=query.device).triu(1) if causal else None
    out = query.new_empty(batch, queries, heads, value.shape[3]).transpose(1, 2)
    lse = torch.empty(batch, heads, queries, device=query.device)
    for row, head, first in product(range(batch), range(heads), range(0, queries, step)):
        last = min(first + step, queries)
        keys = slice(0, last if causal else key.shape[2])
        kept = head // groups
        scores = (query[row, head, first:last] @ key[row, kept, keys].T).float().mul_(call.scale)
        if hidden is not None:
            scores[:, first:].masked_fill_(hidden[: last - first, : last - first], -torch.inf)
        weights = torch.softmax(scores, -1)
        lse[row, head, first:last] = scores.amax(-1) - weights.amax(-1).log()
        out[row, head, first:last] = weights.to(value.dtype) @ value[row, kept, keys]
    return out, lse
