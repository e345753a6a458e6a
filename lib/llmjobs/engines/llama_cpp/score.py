"""Log-likelihoods of a unit's plan on llama.cpp: shared beginnings are computed once, logits only where scored."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmjobs.benchmarks.scoring_requests import Request, Score
from llmjobs.engines.batches import Batch, Reading, Segment, UnitPlan
from llmjobs.engines.llama_cpp import NOT_FINITE
from llmjobs.engines.llama_cpp.context import (
    CPU_BATCH_TOKENS,
    GPU_BATCH_TOKENS,
    Context,
    ContextSettings,
    Logits,
)
from llmjobs.engines.llama_cpp.load import LoadedModel
from llmjobs.engines.pass_time import Budget
from llmjobs.engines.protocol import Extent, ProbeResult, Warn
from llmjobs.engines.scoring_paths import PATHS, TOGETHER, PathScorer, choose_path
from llmjobs.errors import ModelError

log = logging.getLogger(__name__)
PROBED_LENGTH = 512
MOST_LOGIT_BYTES = 1 << 28
"""Maximum number of logits per batch, in bytes; a larger batch is halved."""


class Scorer(PathScorer):
    """Scores batches of a plan on one model.

    ``plain`` computes each distinct input alone and whole. On the other paths llama.cpp itself shares the tree: a token
    belongs to all sequences that begin with it, so its cell is computed once and visible to all of them.
    """

    ALONE = (TOGETHER,)

    def __init__(
        self,
        who: str,
        model: Any,
        settings: ContextSettings,
        vocabulary: int,
        device: str,
        *,
        coarse: bool = False,
        shares: bool = True,
        warn: Warn = log.warning,
    ) -> None:
        """``vocabulary``: number of tokens; ``device`` determines the usual batch size.

        ``coarse``: the weights or the kept keys are not in float32, so rounding explains larger differences. Without
        ``shares`` the path is always ``plain``, for recurrent models, whose state cannot belong to several sequences.
        """
        super().__init__("shared" if shares else "plain", warn)
        self.who = who
        self._coarse, self._shares = coarse, shares
        self._model, self._settings = model, settings
        self._vocabulary, self._device = vocabulary, device
        self._context: Context | None = None
        self._plan: UnitPlan | None = None
        self._stack: list[int] = []
        """Kept prefixes in the context, in the order of their cells."""

    def probe(self, docs: Sequence[Sequence[Request]] = (), *, most_tokens: int | None = None) -> ProbeResult:
        """Compare the paths on a few docs (made up if none are given), choose one, and warn if a faster one fails.

        Reads about 900 tokens, whatever ``most_tokens`` says: fewer would not reach the kernels for many rows.
        """
        if not self._shares:
            found = ProbeResult("plain", None, "a recurrent model: its state cannot be shared among inputs")
            self.take(found)
            return found
        found = choose_path(docs, self._vocabulary, PROBED_LENGTH, self.scores_by, coarse=self._coarse)
        self._forget()
        self.take(found)
        return found

    def can_take(self, path: str) -> bool:
        """A recurrent model's state cannot be shared."""
        return path in PATHS and (path == "plain" or self._shares)

    def batch_budget(self, extent: Extent, *, kept: Mapping[str, Any] | None = None, spent_s: float = 0.0) -> Budget:
        """Return a fixed size: llama.cpp splits batches itself, so a measurement would gain little."""
        size = CPU_BATCH_TOKENS if self._device == "cpu" else GPU_BATCH_TOKENS
        return Budget(size, size, None, "the usual size for llama.cpp")

    def close(self) -> None:
        self._forget()
        self._model = None

    def _forget(self) -> None:
        if self._context:
            self._context.close()
        self._context, self._plan, self._stack = None, None, []

    def start(self, plan: UnitPlan, at: int) -> None:
        """Make room for what a plan needs at one time; a context that is large enough is reused.

        The context contains only the prefixes that a batch needs, in the cells that they would have in an empty one, so
        that a batch's scores do not depend on earlier batches.
        """
        if plan is self._plan:
            return
        cells = _most_cells(plan)
        if self._context is None or self._context.cells < cells:
            self._forget()
            self._context = Context(self.who, self._model, self._settings, cells)
        self._context.clear()
        self._plan, self._stack = plan, []

    def is_too_large(self, plan: UnitPlan, batch: Batch) -> bool:
        """Whether a batch has too many tokens, sequences, or bytes of logits."""
        if super().is_too_large(plan, batch):
            return True
        if self.path_of(plan) == "plain":
            return False
        rows = {row for reading in batch.readings for row in reading.rows}
        sequences = len(_leaves(batch)) + len(_needed(plan, batch))
        return sequences > self._settings.sequences or 4 * len(rows) * self._vocabulary > MOST_LOGIT_BYTES

    def compute(self, plan: UnitPlan, batch: Batch) -> list[Score]:
        """Scores of a batch, in the order of its options."""
        if self.path_of(plan) == "plain":
            scores: list[Score | None] = [None] * len(batch.readings)
            for tree in _alone(batch):
                for at, score in zip(tree.numbers, self._run_tree(plan, tree), strict=True):
                    scores[at] = score
            return [one for one in scores if one is not None]
        return self._run_tree(plan, _Tree.of(batch))

    def _run_tree(self, plan: UnitPlan, tree: "_Tree") -> list[Score]:
        """Compute a tree of segments after its kept prefixes and read its scores."""
        context = self._context
        assert context is not None
        self._keep(plan, tree.needed(plan))
        first = len(self._stack)
        rows = sorted({row for reading in tree.readings for row in reading.rows})
        leaves = tree.leaves
        below = tree.sequences_below(first)
        for at, leaf in enumerate(leaves):
            if (prefix := tree.home(leaf)) >= 0:
                context.copy(self._stack.index(prefix), first + at)
        tokens: list[int] = []
        positions: list[int] = []
        members: list[Sequence[int]] = []
        for segment, whom in zip(tree.segments, below, strict=True):
            tokens += segment.tokens
            positions += range(segment.start, segment.end)
            members += [whom] * len(segment.tokens)
        wanted = set(rows)
        logits = context.decode(tokens, positions, members, [at in wanted for at in range(len(tokens))])
        scores = read_scores(logits, rows, tree.readings)
        for at in range(len(leaves)):
            context.remove(first + at)
        return scores

    def _keep(self, plan: UnitPlan, needed: Sequence[int]) -> None:
        """Make the stack of kept prefixes equal to ``needed``, computing missing ones at its end."""
        context = self._context
        assert context is not None
        common = 0
        while common < min(len(needed), len(self._stack)) and needed[common] == self._stack[common]:
            common += 1
        for at in range(common, len(self._stack)):
            context.remove(at)
        if not common:
            context.clear()
        del self._stack[common:]
        for prefix in needed[common:]:
            segment = plan.prefixes[prefix]
            at = len(self._stack)
            if segment.parent >= 0:
                context.copy(self._stack.index(segment.parent), at)
            count = len(segment.tokens)
            context.decode(segment.tokens, range(segment.start, segment.end), [(at,)] * count, [False] * count)
            self._stack.append(prefix)

    def scores_by(self, path: str, plan: UnitPlan) -> dict[int, list[Score]]:
        """Scores of a whole plan on one path, by doc; what another path kept is computed again."""
        self._plan = None
        return super().scores_by(path, plan)


@dataclass(frozen=True)
class _Tree:
    """Segments in depth-first order, and the readings in their packed rows."""

    segments: tuple[Segment, ...]
    readings: tuple[Reading, ...]
    numbers: tuple[int, ...]
    """Indices of the batch's readings."""

    @classmethod
    def of(cls, batch: Batch) -> "_Tree":
        return cls(batch.segments, batch.readings, tuple(range(len(batch.readings))))

    @property
    def leaves(self) -> list[int]:
        """Segments that no other segment follows; each ends one sequence."""
        parents = {segment.parent for segment in self.segments}
        return [at for at in range(len(self.segments)) if at not in parents]

    def home(self, segment: int) -> int:
        """The kept prefix at the top of a segment's path; -1 for none."""
        while self.segments[segment].parent >= 0:
            segment = self.segments[segment].parent
        return self.segments[segment].prefix

    def sequences_below(self, first: int) -> list[tuple[int, ...]]:
        """For each segment, the sequences that run through it; leaves are numbered from ``first`` on."""
        below: list[list[int]] = [[] for _ in self.segments]
        for number, leaf in enumerate(self.leaves):
            at = leaf
            while at >= 0:
                below[at].append(first + number)
                at = self.segments[at].parent
        return [tuple(one) for one in below]

    def needed(self, plan: UnitPlan) -> list[int]:
        """All kept prefixes that it depends on, each after its parent."""
        tops = dict.fromkeys(one.prefix for one in self.segments if one.parent < 0 and one.prefix >= 0)
        return list(dict.fromkeys(piece for prefix in sorted(tops) for piece in plan.prefix_chain(prefix)))


def _leaves(batch: Batch) -> list[int]:
    return _Tree.of(batch).leaves


def _needed(plan: UnitPlan, batch: Batch) -> list[int]:
    return _Tree.of(batch).needed(plan)


def _alone(batch: Batch) -> Iterator[_Tree]:
    """Each segment of a batch without sharing, as a separate tree."""
    offset = 0
    for segment in batch.segments:
        inside = range(offset, offset + len(segment.tokens))
        numbers = tuple(at for at, one in enumerate(batch.readings) if one.rows[0] in inside)
        readings = tuple(
            Reading(tuple(row - offset for row in batch.readings[at].rows), batch.readings[at].targets)
            for at in numbers
        )
        yield _Tree((segment,), readings, numbers)
        offset += len(segment.tokens)


def _most_cells(plan: UnitPlan) -> int:
    """Maximum number of cells that one batch needs: its own tokens, and all kept prefixes that it depends on."""
    return max(
        (batch.tokens + sum(len(plan.prefixes[one].tokens) for one in _needed(plan, batch)) for batch in plan.batches),
        default=1,
    )


def read_scores(logits: Logits, rows: Sequence[int], readings: Sequence[Reading]) -> list[Score]:
    """Read each option's score from ``logits`` [len(rows), vocabulary]; sums are in double precision.

    ``rows`` names the packed row of each line of logits.
    """
    where = {row: at for at, row in enumerate(rows)}
    best = logits.argmax(-1)
    totals = [_log_sum_exp(line) for line in logits]
    scores = []
    for reading in readings:
        cells = [(where[row], target) for row, target in zip(reading.rows, reading.targets, strict=True)]
        value = sum(float(logits[at, target]) - totals[at] for at, target in cells)
        scores.append(Score(value, all(int(best[at]) == target for at, target in cells)))
    return scores


def _log_sum_exp(line: Any) -> float:
    most = float(line.max())
    return most + float(np.log(np.exp(line - np.float32(most)).sum(dtype=np.float64)))


def next_token_logprobs(
    loaded: LoadedModel, max_length: int, tokens: Sequence[int], positions: Sequence[int]
) -> NDArray[np.float32]:
    """Log-probabilities [positions, vocabulary] in nats; the text is one sequence in an empty context.

    Raises:
        ModelError: the text is too long, llama.cpp cannot compute it, or the result is not a number.

    """
    if len(tokens) > max_length:
        raise ModelError(
            f"{loaded.spec.name}: {len(tokens)} tokens, but the model's context length is {max_length} tokens"
        )
    wanted = set(positions)
    context = Context(loaded.spec.name, loaded.model, loaded.settings, len(tokens))
    try:
        logits = context.decode(
            tokens, range(len(tokens)), [(0,)] * len(tokens), [at in wanted for at in range(len(tokens))]
        )
        found = _log_softmax(logits)
    finally:
        context.close()
    if np.isnan(found).any():
        raise ModelError(f"{loaded.spec.name}: {NOT_FINITE}")
    return found


def _log_softmax(logits: Any) -> NDArray[np.float32]:
    """Compute row by row, to avoid a second copy of all rows in double precision."""
    found = np.empty(logits.shape, np.float32)
    for at, line in enumerate(logits):
        values = line.astype(np.float64)
        values -= values.max()
        found[at] = values - np.log(np.exp(values).sum())
    return found
