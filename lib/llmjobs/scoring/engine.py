"""Runs a unit's plan batch by batch and reads the log-likelihoods."""

import logging
from collections.abc import Callable, Sequence

from torch import Tensor

from llmjobs.errors import ModelError
from llmjobs.scoring.attention import KeysValues
from llmjobs.scoring.batch import Batch, Option, build_batch
from llmjobs.scoring.forward import Model, PackedForward, padded_logits
from llmjobs.scoring.layout import layout_batch, layout_prefix, whole_inputs
from llmjobs.scoring.memory import free_memory, is_out_of_memory
from llmjobs.scoring.plan import UnitPlan
from llmjobs.scoring.probe import ProbeResult, probe_sharing
from llmjobs.scoring.reading import read_scores
from llmjobs.scoring.requests import Request, Score

__all__ = ["ProbeResult", "Scorer"]

log = logging.getLogger(__name__)


class Scorer:
    """Scores batches of a plan on one model.

    ``pad_token_id`` fills rows on the plain path; any token does. ``warn`` gets one line for whatever is
    not as asked (default: this module's logger). ``path`` is ``shared`` (packed trees) or ``plain`` (whole
    padded inputs), set by :meth:`probe`; ``token_limit`` is the batch size that out-of-memory errors left
    (None: no limit). A run that is resumed sets both back, to compute what the unbroken run would.
    """

    def __init__(
        self, model: Model, pad_token_id: int = 0, warn: Callable[[str], None] = log.warning
    ) -> None:
        self.model = model
        self.pad_token_id = pad_token_id
        self.warn = warn
        self.path = "plain" if PackedForward.refuses(model) else "shared"
        self.token_limit: int | None = None
        self._packed = PackedForward(model)
        self._plan: UnitPlan | None = None
        self._kept: dict[int, KeysValues] = {}
        model.eval()

    def probe(self, docs: Sequence[Sequence[Request]] = (), longest: int | None = None) -> ProbeResult:
        """Compare both paths on a few docs (made up where none are given) and choose, a refusal aloud.

        ``longest``: the most tokens that an input of the coming units has; needed for position schemes that
        change with the length.
        """
        found = probe_sharing(self.model, self._both_paths, docs, longest)
        self.path = found.path
        if found.path == "plain":
            self.warn(f"scoring without shared prefixes: {found.reason}")
        return found

    def score_batch(self, plan: UnitPlan, at: int) -> list[list[Score]]:
        """Return the scores of batch ``at``: a list for each of ``plan.batches[at].docs``, in option order.

        The result does not depend on which batches ran before. Raises ModelError where not even one option
        fits into memory.
        """
        self._follow(plan, at)
        scores = self._score(plan, plan.batches[at])
        by_doc: dict[int, list[Score]] = {doc: [] for doc in plan.batches[at].docs}
        for doc, option in sorted(scores):
            by_doc[doc].append(scores[doc, option])
        return list(by_doc.values())

    def close(self) -> None:
        """Free every cache and forget the model."""
        self._kept.clear()
        self._plan = self.model = None
        self._packed.model = None
        free_memory()

    def _follow(self, plan: UnitPlan, at: int) -> None:
        """Drop the prefixes that no batch from ``at`` on needs."""
        if plan is not self._plan:
            self._plan, self._kept = plan, {}
        last = plan.last_uses
        self._kept = {prefix: kept for prefix, kept in self._kept.items() if last[prefix] >= at}

    def _score(self, plan: UnitPlan, batch: Batch) -> dict[Option, Score]:
        """Run a batch; where it is too large, run its halves."""
        too_large = self.token_limit is not None and batch.tokens > self.token_limit
        if too_large and len(batch.options) > 1:
            return self._score_halves(plan, batch)
        try:
            return dict(zip(batch.options, self._run(plan, batch), strict=True))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch.options) == 1:
                raise ModelError(
                    f"out of memory with one option of {batch.tokens} tokens: {error}"
                ) from error
        self.token_limit = max(1, batch.tokens // 2)
        self.warn(f"out of memory with {batch.tokens} tokens in a batch: going on with {self.token_limit}")
        free_memory()
        return self._score_halves(plan, batch)

    def _score_halves(self, plan: UnitPlan, batch: Batch) -> dict[Option, Score]:
        """Split by docs, or by the options of the only doc."""
        docs = batch.docs
        first = set(docs[: len(docs) // 2])
        cut = sum(doc in first for doc, _ in batch.options) or len(batch.options) // 2
        halves = (batch.options[:cut], batch.options[cut:])
        scores: dict[Option, Score] = {}
        for options in halves:
            scores |= self._score(plan, build_batch(options, plan.placed, plan.sharing))
        return scores

    def _run(self, plan: UnitPlan, batch: Batch) -> list[Score]:
        rows = sorted({row for reading in batch.readings for row in reading.rows})
        logits = (
            self._shared_logits(plan, batch, rows)
            if self.path == "shared"
            else self._plain_logits(plan, batch, rows)
        )
        return read_scores(logits, rows, batch.readings)

    def _both_paths(self, plan: UnitPlan) -> tuple[list[list[list[Score]]], list[list[list[Score]]]]:
        """Return all batches' scores by the shared and by the plain path."""
        results = []
        for self.path in ("shared", "plain"):
            results.append([self.score_batch(plan, at) for at in range(len(plan.batches))])
        return results[0], results[1]

    def _shared_logits(self, plan: UnitPlan, batch: Batch, rows: Sequence[int]) -> Tensor:
        for prefix in batch.prefixes:
            for piece in plan.prefix_chain(prefix):
                if piece not in self._kept:
                    self._kept[piece] = self._packed.keys_values(layout_prefix(plan, piece), self._kept)
        return self._packed.logits(layout_batch(plan, batch), rows, self._kept)

    def _plain_logits(self, plan: UnitPlan, batch: Batch, rows: Sequence[int]) -> Tensor:
        """Write out every leaf of the batch's trees; a row is read in the first leaf that it leads to."""
        inputs, cells = whole_inputs(plan, batch)
        width = max(map(len, inputs))
        return padded_logits(
            self.model, inputs, [cells[row][0] * width + cells[row][1] for row in rows], self.pad_token_id
        )
