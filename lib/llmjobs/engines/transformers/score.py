"""Log-likelihoods of a unit's plan, batch by batch, on the shared, the cached or the plain path."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmjobs.benchmarks.scoring_requests import Request, Score
from llmjobs.engines.batches import Batch, Reading, UnitPlan
from llmjobs.engines.pass_time import Budget
from llmjobs.engines.protocol import Extent, ProbeResult
from llmjobs.engines.scoring_paths import PathScorer
from llmjobs.engines.transformers.batch_size import FEW_S, PREFIX_TOKENS, candidate_sizes, measure_batch_tokens
from llmjobs.engines.transformers.device import SMALLER, free_memory, is_out_of_memory
from llmjobs.engines.transformers.fast_path_trials import ScoringProbe, made_up_tokens, probe_paths, probe_size
from llmjobs.engines.transformers.first_layers import enough_layers, try_on
from llmjobs.engines.transformers.forward import (
    Model,
    PackedForward,
    cache_argument,
    cached_forward,
    pad_right,
    padded_logits,
)
from llmjobs.engines.transformers.packed_attention import Leaves, find_leaves, layout_batch, layout_prefix
from llmjobs.engines.transformers.shapes import reset_frequencies, sharing_limit
from llmjobs.errors import ModelError
from llmjobs.memory import available_bytes

# Three ways to compute a batch, from most to least sharing; the probe chooses one for each model.

Kept = dict[int, Any]
"""What a path stores for each kept prefix between batches."""


class Path(Protocol):
    """A way to get the logits of a batch's packed rows."""

    def refuses(self, model: Model) -> str | None:
        """Return why a model cannot use this path, or None."""

    def keep(self, plan: UnitPlan, prefix: int, kept: Kept) -> Any:
        """Compute a kept prefix after those that it follows."""

    def logits(self, plan: UnitPlan, batch: Batch, rows: Sequence[int], kept: Kept) -> Tensor:
        """Return logits [len(rows), vocabulary]."""


class SharedPath:
    """Packed trees of segments."""

    def __init__(self, model: Model) -> None:
        self._packed = PackedForward(model)

    def refuses(self, model: Model) -> str | None:
        """Return what packing needs and the model lacks, or None."""
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
        """Return a reason if there is no key-value cache."""
        has = cache_argument(model) in ("cache", "past_key_values")
        return None if has else f"{type(model).__name__} has no key-value cache"

    def keep(self, plan: UnitPlan, prefix: int, kept: Kept) -> Any:
        """Keep the cache that the prefix leaves."""
        segment = plan.prefixes[prefix]
        before = kept.get(segment.parent)
        _, cache = cached_forward(self._model, torch.tensor([segment.tokens]), [0], before, segment.start)
        return cache

    def logits(self, plan: UnitPlan, batch: Batch, rows: Sequence[int], kept: Kept) -> Tensor:
        """Run the leaves of each kept prefix, and reorder the rows."""
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
    """Whole inputs, padded on the right, which works for every causal model.

    If positions change with the length of the longest input, only inputs of equal length run together.
    """

    def __init__(self, model: Model, pad_token_id: int) -> None:
        self._model, self._pad = model, pad_token_id
        self._limit = sharing_limit(model)

    def refuses(self, model: Model) -> str | None:
        """Return None: every model can use this path."""
        return None

    def keep(self, plan: UnitPlan, prefix: int, kept: Kept) -> Any: ...

    def logits(self, plan: UnitPlan, batch: Batch, rows: Sequence[int], kept: Kept) -> Tensor:
        """Write out every leaf; a row is read in the first leaf that contains it."""
        leaves = find_leaves(plan, batch)
        width = max(map(len, leaves.inputs))
        if self._limit is not None and width > self._limit:
            return self._by_length(leaves, rows)
        reset_frequencies(self._model)
        cells = [leaves.cells[row][0] * width + leaves.cells[row][1] for row in rows]
        return padded_logits(self._model, leaves.inputs, cells, self._pad)

    def _by_length(self, leaves: Leaves, rows: Sequence[int]) -> Tensor:
        """Run leaves of equal length together, and reorder the rows."""
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


CHUNK = 1 << 21
"""Number of logits that are turned into probabilities at once, so that they fit into a processor's cache."""


def read_scores(logits: Tensor, rows: Sequence[int], readings: Sequence[Reading]) -> list[Score]:
    """Read each option's score from ``logits`` [len(rows), vocabulary]; log-softmax in fp32, sums in double.

    ``rows`` names the packed row of each line of logits.
    """
    where = {row: at for at, row in enumerate(rows)}
    cells = [
        (where[row], target) for reading in readings for row, target in zip(reading.rows, reading.targets, strict=True)
    ]
    at, targets = torch.tensor(cells, device=logits.device).T
    best, total = _best_and_total(logits)
    greedy = (best[at] == targets).tolist()
    picked = (logits[at, targets].float() - total[at]).tolist()
    scores, first = [], 0
    for reading in readings:
        last = first + len(reading.targets)
        scores.append(Score(sum(picked[first:last]), all(greedy[first:last])))
        first = last
    return scores


def _best_and_total(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's best token and log-sum-exp, a few rows at a time, without a second copy of all logits."""
    chunks = (chunk.float() for chunk in logits.split(max(1, CHUNK // logits.shape[-1])))
    pairs = [(chunk.argmax(-1), torch.logsumexp(chunk, -1)) for chunk in chunks]
    return torch.cat([best for best, _ in pairs]), torch.cat([total for _, total in pairs])


__all__ = ["Scorer", "ScoringProbe"]

log = logging.getLogger(__name__)


class Scorer(PathScorer):
    """Scores batches of a plan on one model.

    ``pad_token_id`` fills rows on the plain path; any token works. ``warn`` gets one line for any deviation from the
    request (default: this module's logger). ``path`` is ``shared``, ``cached`` or ``plain`` (``paths`` says what they
    do), set by :meth:`probe`; ``token_limit`` is the batch size after out-of-memory errors (None: no limit). A resumed
    run restores both, to compute the same as an unbroken one.
    """

    RESULT = ScoringProbe

    def __init__(self, model: Model, pad_token_id: int = 0, warn: Callable[[str], None] = log.warning) -> None:
        self.model = model
        self.pad_token_id = pad_token_id
        self._paths: dict[str, Path] = {
            "shared": SharedPath(model),
            "cached": CachedPath(model, pad_token_id),
            "plain": PlainPath(model, pad_token_id),
        }
        super().__init__(next(name for name, path in self._paths.items() if not path.refuses(model)), warn)
        self._plan: UnitPlan | None = None
        self._kept: Kept = {}
        model.eval()

    def probe(self, docs: Sequence[Sequence[Request]] = (), *, most_tokens: int | None = None) -> ScoringProbe:
        """Compare the paths on a few docs (made up if none are given), choose one, and warn if a faster one fails.

        ``most_tokens``: about how many tokens the comparison may read. If it would take more than a few seconds, only
        the model's first layers are compared (``first_layers``).
        """
        refusals = {name: path.refuses(self.model) for name, path in self._paths.items()}
        best = next(name for name, refusal in refusals.items() if refusal is None)
        tokens, passes = probe_size(most_tokens)
        layers = enough_layers(self.model, tokens=tokens, passes=passes) if best != "plain" else None

        def compare() -> ScoringProbe:
            return probe_paths(self.model, refusals, self._score_by, docs, most_tokens=most_tokens)

        found = try_on(self.model, layers, compare, lambda one: one.path == best)
        if layers is not None and found.path == best:
            found = replace(found, layers=layers)
        self.take(found)
        return found

    def take(self, found: ProbeResult) -> None:
        """Use the path that a probe chose; a slower one gives a warning."""
        super().take(found)
        self._plan = None

    def batch_budget(self, extent: Extent, *, kept: Mapping[str, Any] | None = None, spent_s: float = 0.0) -> Budget:
        """Return how many tokens a batch should have: as in an earlier run if that fits, otherwise by timing passes."""
        sizes = candidate_sizes(self.model, extent.unit_tokens, available_bytes())
        known = Budget.from_builtin(kept)
        if known and known.time and (known.largest >= sizes[-1] or known.batch_tokens < known.largest):
            return known
        return measure_batch_tokens(
            self.model,
            shared=self.path == "shared",
            sizes=sizes,
            seconds=max(FEW_S - spent_s, FEW_S / 4),
            most_tokens=max(extent.study_tokens - made_up_tokens(extent.study_tokens), 0),
            study_tokens=extent.study_tokens,
            prefix_tokens=min(extent.prefix_tokens, PREFIX_TOKENS),
        )

    def cannot_share(self, docs: Sequence[Sequence[Request]], max_length: int) -> bool:
        """Whether positions change with the length of the longest input and these docs exceed that limit."""
        limit = sharing_limit(self.model)
        read = (max(len(one.context), 1) + len(one.continuation) - 1 for doc in docs for one in doc)
        longest = min(max(read, default=0), max_length)
        beyond = limit is not None and longest > limit
        if beyond and self.path != "plain":
            self.warn(f"inputs of up to {longest} tokens: positions change beyond {limit}, so nothing is shared")
        return beyond

    def close(self) -> None:
        """Free every cache and release the model."""
        self._kept.clear()
        self._paths.clear()
        self._plan = self.model = None
        free_memory()

    def start(self, plan: UnitPlan, at: int) -> None:
        """Drop the prefixes that no batch from ``at`` on needs."""
        if plan is not self._plan:
            self._plan, self._kept = plan, {}
        last = plan.last_uses
        self._kept = {prefix: kept for prefix, kept in self._kept.items() if last[prefix] >= at}

    def compute(self, plan: UnitPlan, batch: Batch) -> list[Score] | None:
        """Run a batch; an out-of-memory error lowers ``token_limit``."""
        try:
            return self._run(plan, batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch.options) == 1:
                raise ModelError(
                    f"out of memory with one option of {batch.tokens} tokens: {error}; {SMALLER}"
                ) from error
        self.token_limit = max(1, batch.tokens // 2)
        self.warn(f"out of memory with {batch.tokens} tokens in a batch: continuing with {self.token_limit}")
        free_memory()
        return None

    def _run(self, plan: UnitPlan, batch: Batch) -> list[Score]:
        path = self._paths[self.path_of(plan)]
        reset_frequencies(self.model)
        for prefix in batch.prefixes:
            for piece in plan.prefix_chain(prefix):
                if piece not in self._kept:
                    self._kept[piece] = path.keep(plan, piece, self._kept)
        rows = sorted({row for reading in batch.readings for row in reading.rows})
        return read_scores(path.logits(plan, batch, rows, self._kept), rows, batch.readings)

    def _score_by(self, path: str, plan: UnitPlan) -> list[Score]:
        """Return all scores of a plan by one path."""
        self.path, self._plan = path, None
        scored = (self.score_batch(plan, at) for at in range(len(plan.batches)))
        return [score for batch in scored for doc in batch for score in doc]


def next_token_logprobs(model: Model, tokens: Sequence[int], positions: Sequence[int]) -> NDArray[np.float32] | None:
    """Log-probabilities [positions, vocabulary] in nats, of one row read in one pass; None if some are not numbers.

    Raises:
        ModelError: there is not enough memory.

    """
    reset_frequencies(model)
    try:
        logits = padded_logits(model, [tokens], positions, 0)
        with torch.inference_mode():
            found = torch.log_softmax(logits.float(), -1).cpu()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        free_memory()
        raise ModelError(f"out of memory with a text of {len(tokens)} tokens: {error}; {SMALLER}") from error
    return None if bool(found.isnan().any()) else found.numpy()
