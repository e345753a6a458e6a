"""Attention over a tree of token segments packed into one row: each segment sees itself and those that it follows.

Each part is computed with its log-sum-exp, so that parts are merged exactly. On a CPU a call per segment costs
microseconds; on a GPU thousands of launches would dominate the time. There, torch's variable-length flash attention
takes all segments in one launch, and one more for each level of sharing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, product
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from llmjobs.engines.batches import Batch, Segment, Tokens, UnitPlan

Kernel = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Causal:
    """``count`` neighbouring segments of ``length`` rows from row ``first``: causal attention inside each."""

    first: int
    length: int
    count: int


@dataclass(frozen=True, slots=True)
class Cross:
    """Rows ``first`` … ``last`` - 1 attend to every key of an earlier segment or of a kept prefix.

    Keys: rows ``key_first`` … ``key_last`` - 1 of this forward, or the whole of kept prefix ``prefix`` (>=
    0). ``key_start`` is the position of the first key.
    """

    first: int
    last: int
    key_first: int
    key_last: int
    key_start: int
    prefix: int = -1


@dataclass(frozen=True)
class Layout:
    """One packed forward: tokens and positions of its rows, and its attention."""

    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    causal: tuple[Causal, ...]
    cross: tuple[Cross, ...] = field(default=())


def layout_batch(plan: UnitPlan, batch: Batch) -> Layout:
    """Lay out a batch depth first, so that all descendants of a segment are one range of rows after it."""
    segments = batch.segments
    offsets = _offsets(segments)
    cross = [*_prefix_cross(plan, segments, offsets), *_inner_cross(segments, offsets)]
    return Layout(
        tuple(token for segment in segments for token in segment.tokens),
        tuple(position for segment in segments for position in range(segment.start, segment.end)),
        _causal(segments, offsets),
        tuple(cross),
    )


def layout_prefix(plan: UnitPlan, prefix: int) -> Layout:
    """Lay out a kept prefix, which attends to the prefixes that it follows."""
    segment = plan.prefixes[prefix]
    size = len(segment.tokens)
    chain = plan.prefix_chain(prefix)[:-1]
    return Layout(
        segment.tokens,
        tuple(range(segment.start, segment.end)),
        (Causal(0, size, 1),),
        tuple(_whole_prefix(plan, above, 0, size) for above in chain),
    )


@dataclass(frozen=True)
class Leaves:
    """A batch's trees written out: whole inputs, each one's kept prefix, and where each packed row is."""

    inputs: list[Tokens]
    prefixes: list[int]
    cells: dict[int, tuple[int, int]]


def find_leaves(plan: UnitPlan, batch: Batch) -> Leaves:
    """Write out every leaf; ``cells`` gives, for each packed row, the first input that contains it and its position."""
    segments, offsets = batch.segments, _offsets(batch.segments)
    parents = {segment.parent for segment in segments}
    found = Leaves([], [], {})
    for leaf in range(len(segments)):
        if leaf in parents:
            continue
        path = _path(segments, leaf)
        prefix = segments[path[0]].prefix
        pieces = [*(plan.prefixes[at] for at in plan.prefix_chain(prefix)), *(segments[at] for at in path)]
        for at in path:
            positions = range(segments[at].start, segments[at].end)
            for row, position in zip(range(offsets[at], offsets[at + 1]), positions, strict=True):
                found.cells.setdefault(row, (len(found.inputs), position))
        found.inputs.append(tuple(token for piece in pieces for token in piece.tokens))
        found.prefixes.append(prefix)
    return found


def _path(segments: Sequence[Segment], leaf: int) -> list[int]:
    path = [leaf]
    while segments[path[-1]].parent >= 0:
        path.append(segments[path[-1]].parent)
    return path[::-1]


def _whole_prefix(plan: UnitPlan, prefix: int, first: int, last: int) -> Cross:
    kept = plan.prefixes[prefix]
    return Cross(first, last, 0, len(kept.tokens), kept.start, prefix)


def _offsets(segments: Sequence[Segment]) -> list[int]:
    offsets = [0]
    for segment in segments:
        offsets.append(offsets[-1] + len(segment.tokens))
    return offsets


def _tree_end(segments: Sequence[Segment], top: int) -> int:
    """Return the index after the last segment below ``top``."""
    at = top + 1
    while at < len(segments) and segments[at].parent >= top:
        at += 1
    return at


def _prefix_cross(plan: UnitPlan, segments: Sequence[Segment], offsets: Sequence[int]) -> list[Cross]:
    """Rows that start with the same kept prefix, which are neighbours, attend to each of its pieces."""
    tops = [at for at, segment in enumerate(segments) if segment.parent < 0]
    found = []
    for prefix, group in groupby(tops, key=lambda at: segments[at].prefix):
        members = list(group)
        first, last = offsets[members[0]], offsets[_tree_end(segments, members[-1])]
        found += [_whole_prefix(plan, piece, first, last) for piece in plan.prefix_chain(prefix)]
    return found


def _inner_cross(segments: Sequence[Segment], offsets: Sequence[int]) -> list[Cross]:
    """All descendants of a segment attend to it."""
    found = []
    for at, segment in enumerate(segments):
        end = _tree_end(segments, at)
        if end > at + 1:
            found.append(Cross(offsets[at + 1], offsets[end], offsets[at], offsets[at + 1], segment.start))
    return found


def _causal(segments: Sequence[Segment], offsets: Sequence[int]) -> tuple[Causal, ...]:
    """Neighbouring segments of one length run as one call."""
    found = []
    at = 0
    for length, group in groupby(segments, key=lambda segment: len(segment.tokens)):
        count = len(list(group))
        found.append(Causal(offsets[at], length, count))
        at += count
    return tuple(found)


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
    return Level(_packed_rows(queries, device), None if prefix >= 0 else _packed_rows(keys, device), prefix, ranges)


def _packed_rows(ranges: Sequence[tuple[int, int]], device: torch.device | str) -> Tensor:
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


MAX_SCORES = 1 << 26
"""Maximum attention scores that the matrix-product path holds at once (fp32: 256 MiB)."""


HALF_KEYS = 64
HALF_CAUSAL_KEYS = 320
"""Number of keys from which two matrix products are faster than the CPU's flash attention in half precision."""
HALF_BLOCK = 128
"""Queries of causal attention in one product."""


@dataclass(frozen=True, slots=True)
class Call:
    """A layer's settings: the scale of q·k, its sliding window in tokens, its soft cap on scores."""

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

    Key and value may have fewer heads (grouped queries). ``causal``: query i sees keys 0 … i, as many keys as queries.
    ``distance`` [queries]: how far each query is after key 0; needed for a window, not with ``causal``. A query that
    sees no key gives 0 and -inf.
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
    """Return the window if it hides a key from a query, otherwise None."""
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
    """Attention by two matrix products; softmax in fp32, as in transformers' eager attention."""
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


NAME = "llmjobs_tree"
KeysValues = dict[int, tuple[Tensor, Tensor]]
"""Keys and values [1, heads, tokens, head size] of every attention module, by the module's ``id``."""


@dataclass
class Run:
    """What the attention function needs to know about its forward, and its results.

    ``kept``: keys and values of the kept prefixes; ``keep``: whether to store this forward's own in ``produced``;
    ``windows``: the sliding windows (0: none) that the layers used; ``calls``: how many layers ran here.
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
        """Whether a window hides some earlier part's key from a row."""
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
    """Attend according to the layout of the current :class:`Run`: [1, heads, rows, size] → [1, rows, heads, size]."""
    run = _RUN.get()
    if run is None:
        raise RuntimeError(f"attention {NAME!r} only works inside a scoring forward pass")
    run.calls += 1
    run.windows.add(sliding_window or 0)
    if run.keep:
        # contiguous, because a view would keep the whole of a fused query-key-value projection alive
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
