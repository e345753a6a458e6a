"""Three ways through a batch, from most to least sharing; the probe chooses one for each model.

``shared``: everything that inputs have in common, packed (``attention``). ``cached``: the kept prefixes
only, in the model's own cache, for models with an attention of their own. ``plain``: whole inputs.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from llmjobs.scoring.batch import Batch
from llmjobs.scoring.forward import Model, PackedForward, cache_argument, cached_forward, pad_right, padded_logits
from llmjobs.scoring.layout import Leaves, find_leaves, layout_batch, layout_prefix
from llmjobs.scoring.lengths import reset_frequencies, sharing_limit
from llmjobs.scoring.plan import UnitPlan

Kept = dict[int, Any]
"""What a path keeps of each kept prefix between batches."""


class Path(Protocol):
    """A way to get the logits of a batch's packed rows."""

    def refuses(self, model: Model) -> str | None:
        """Say why a model cannot take this path, or None."""

    def keep(self, plan: UnitPlan, prefix: int, kept: Kept) -> Any:
        """Compute a kept prefix after those that it hangs on."""

    def logits(self, plan: UnitPlan, batch: Batch, rows: Sequence[int], kept: Kept) -> Tensor:
        """Return logits [len(rows), vocabulary]."""


class SharedPath:
    """Packed trees of segments."""

    def __init__(self, model: Model) -> None:
        self._packed = PackedForward(model)

    def refuses(self, model: Model) -> str | None:
        """Say what packing needs and the model lacks."""
        return PackedForward.refuses(model)

    def keep(self, plan: UnitPlan, prefix: int, kept: Kept) -> Any:
        """Keep keys and values as the attention modules see them."""
        return self._packed.keys_values(layout_prefix(plan, prefix), kept)

    def logits(self, plan: UnitPlan, batch: Batch, rows: Sequence[int], kept: Kept) -> Tensor:
        """Run the batch as one row of tokens."""
        return self._packed.logits(layout_batch(plan, batch), rows, kept)


class CachedPath:
    """Rows of whole leaves after copies of transformers' own cache; one forward for each kept prefix."""

    def __init__(self, model: Model, pad_token_id: int) -> None:
        self._model, self._pad = model, pad_token_id

    def refuses(self, model: Model) -> str | None:
        """Need a key-value cache."""
        has = cache_argument(model) in ("cache", "past_key_values")
        return None if has else f"{type(model).__name__} has no key-value cache"

    def keep(self, plan: UnitPlan, prefix: int, kept: Kept) -> Any:
        """Keep the cache that the prefix leaves."""
        segment = plan.prefixes[prefix]
        before = kept.get(segment.parent)
        _, cache = cached_forward(self._model, torch.tensor([segment.tokens]), [0], before, segment.start)
        return cache

    def logits(self, plan: UnitPlan, batch: Batch, rows: Sequence[int], kept: Kept) -> Tensor:
        """Run the leaves of each kept prefix, and put the rows into order."""
        leaves = find_leaves(plan, batch)
        order: list[int] = []
        parts: list[Tensor] = []
        for prefix in sorted(set(leaves.prefixes)):
            mine = [row for row in rows if leaves.prefixes[leaves.cells[row][0]] == prefix]
            if mine:
                order += mine
                parts.append(self._group(plan, leaves, prefix, mine, kept))
        place = {row: at for at, row in enumerate(order)}
        whole = torch.cat(parts)
        return whole[torch.tensor([place[row] for row in rows], device=whole.device)]

    def _group(self, plan: UnitPlan, leaves: Leaves, prefix: int, rows: Sequence[int], kept: Kept) -> Tensor:
        start = plan.prefixes[prefix].end if prefix >= 0 else 0
        members = [at for at, home in enumerate(leaves.prefixes) if home == prefix]
        line = {leaf: at for at, leaf in enumerate(members)}
        grid = pad_right([leaves.inputs[at][start:] for at in members], self._pad)
        where = ((line[leaves.cells[row][0]], leaves.cells[row][1] - start) for row in rows)
        cells = [at * grid.shape[1] + position for at, position in where]
        return cached_forward(self._model, grid, cells, kept.get(prefix), start)[0]


class PlainPath:
    """Whole inputs, padded on the right: what every causal model can do.

    Where positions change with the length of the longest input, inputs of another length do not run beside it.
    """

    def __init__(self, model: Model, pad_token_id: int) -> None:
        self._model, self._pad = model, pad_token_id
        self._limit = sharing_limit(model)

    def refuses(self, model: Model) -> str | None:
        """Refuse nothing."""
        return None

    def keep(self, plan: UnitPlan, prefix: int, kept: Kept) -> Any:
        """Keep nothing."""

    def logits(self, plan: UnitPlan, batch: Batch, rows: Sequence[int], kept: Kept) -> Tensor:
        """Write out every leaf; a row is read in the first leaf that it leads to."""
        leaves = find_leaves(plan, batch)
        width = max(map(len, leaves.inputs))
        if self._limit is not None and width > self._limit:
            return self._by_length(leaves, rows)
        reset_frequencies(self._model)
        cells = [leaves.cells[row][0] * width + leaves.cells[row][1] for row in rows]
        return padded_logits(self._model, leaves.inputs, cells, self._pad)

    def _by_length(self, leaves: Leaves, rows: Sequence[int]) -> Tensor:
        """Run leaves of equal length together, and put the rows into order."""
        order: list[int] = []
        parts: list[Tensor] = []
        for length in sorted(set(map(len, leaves.inputs))):
            members = [at for at, tokens in enumerate(leaves.inputs) if len(tokens) == length]
            line = {leaf: at for at, leaf in enumerate(members)}
            mine = [row for row in rows if leaves.cells[row][0] in line]
            if mine:
                reset_frequencies(self._model)
                order += mine
                cells = [line[leaves.cells[row][0]] * length + leaves.cells[row][1] for row in mine]
                parts.append(padded_logits(self._model, [leaves.inputs[at] for at in members], cells, self._pad))
        place = {row: at for at, row in enumerate(order)}
        whole = torch.cat(parts)
        return whole[torch.tensor([place[row] for row in rows], device=whole.device)]
