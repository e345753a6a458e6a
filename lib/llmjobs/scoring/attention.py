"""Attention over a tree of token segments packed into one row.

It serves every model that takes its attention from transformers' ``AttentionInterface``.

Queries attend to each part of their context apart (a kept prefix, an earlier segment, their own segment)
and the parts are merged by their log-sum-exps. That is exact, and no prefix is ever copied for its children
(Hydragen, arXiv 2402.05099).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from llmjobs.scoring.kernels import Call, attend
from llmjobs.scoring.layout import Causal, Cross, Layout
from llmjobs.scoring.varlen import VarlenLayout, varlen_attention, varlen_fits, varlen_layout

NAME = "llmjobs_tree"
KeysValues = dict[int, tuple[Tensor, Tensor]]
"""Keys and values [1, heads, tokens, head size] of every attention module, by the module's ``id``."""


@dataclass
class Run:
    """What the attention function needs to know of the forward it runs in, and what it leaves behind.

    ``kept``: keys and values of the kept prefixes; ``keep``: whether to leave this forward's own in
    ``produced``; ``windows``: the sliding windows (0: none) that the layers asked for; ``calls``: how many
    layers ran here.
    """

    layout: Layout
    positions: Tensor
    kept: dict[int, KeysValues] = field(default_factory=dict)
    keep: bool = False
    produced: KeysValues = field(default_factory=dict)
    windows: set[int] = field(default_factory=set)
    calls: int = 0

    @cached_property
    def varlen(self) -> VarlenLayout:
        """The layout for the variable-length kernel."""
        return varlen_layout(self.layout, self.positions.device)

    def reaches_back(self, window: int | None) -> bool:
        """Say whether a window hides some earlier part's key from a row."""
        return window is not None and bool(self.layout.cross) and max(self.layout.positions) >= window


_RUN: ContextVar[Run | None] = ContextVar("llmjobs_tree_run", default=None)


@contextmanager
def running(run: Run) -> Iterator[None]:
    """Make ``run`` the one that attention modules see."""
    token = _RUN.set(run)
    try:
        yield
    finally:
        _RUN.reset(token)


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend as the current :class:`Run` lays out: [1, heads, rows, size] gives [1, rows, heads, size]."""
    run = _RUN.get()
    if run is None:
        raise RuntimeError(f"attention {NAME!r} works inside a scoring forward only")
    run.calls += 1
    run.windows.add(sliding_window or 0)
    if run.keep:
        # Contiguous: a view would keep the whole of a fused query-key-value projection alive.
        run.produced[id(module)] = (key.contiguous(), value.contiguous())
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    call = Call(scale, sliding_window, softcap)

    def kept(prefix: int) -> tuple[Tensor, Tensor]:
        return run.kept[prefix][id(module)]

    if varlen_fits(query, value) and softcap is None and not run.reaches_back(sliding_window):
        out, lse = varlen_attention(run.varlen, (query, key, value), kept, scale, sliding_window)
    else:
        out, lse = _causal_parts(run, call, query, key, value)
        for part in run.layout.cross:
            source = kept(part.prefix) if part.prefix >= 0 else (key, value)
            _merge_cross(run, call, part, query, source, out, lse)
    if s_aux is not None:
        out *= torch.sigmoid(lse - s_aux.float()[:, None])[..., None]
    return out.to(query.dtype).transpose(0, 1)[None], None


def _causal_parts(run: Run, call: Call, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return fp32 outputs [heads, rows, size] and log-sum-exps [heads, rows] of each segment on itself."""
    heads, rows, size = query.shape[1], query.shape[2], value.shape[3]
    out = torch.empty(rows, heads, size, dtype=torch.float32, device=query.device).transpose(0, 1)
    lse = torch.empty(heads, rows, dtype=torch.float32, device=query.device)
    for part in run.layout.causal:
        end = part.first + part.length * part.count
        found, found_lse = attend(call, _rows(query, part), _rows(key, part), _rows(value, part), causal=True)
        out[:, part.first : end] = found.transpose(0, 1).reshape(heads, end - part.first, size)
        lse[:, part.first : end] = found_lse.transpose(0, 1).reshape(heads, end - part.first)
    return out, lse


def _rows(tensor: Tensor, part: Causal) -> Tensor:
    """View [1, heads, rows, size] as [count, heads, length, size]."""
    end = part.first + part.length * part.count
    rows: Tensor = tensor[0, :, part.first : end].unflatten(1, (part.count, part.length))
    return rows.transpose(0, 1)


def _merge_cross(
    run: Run, call: Call, part: Cross, query: Tensor, source: tuple[Tensor, Tensor], out: Tensor, lse: Tensor
) -> None:
    """Attend to one earlier part and merge in place: weights are the softmax of the two log-sum-exps."""
    rows = slice(part.first, part.last)
    keys = slice(part.key_first, part.key_last)
    positions = run.positions[rows]
    found = attend(
        call, query[:, :, rows], source[0][:, :, keys], source[1][:, :, keys],
        distance=positions - part.key_start if call.window else None,
    )  # fmt: skip
    weight = torch.sigmoid(found[1][0] - lse[:, rows])
    out[:, rows].lerp_(found[0][0].float(), weight[..., None])
    lse[:, rows] = torch.logaddexp(lse[:, rows], found[1][0])


AttentionInterface.register(NAME, tree_attention)
