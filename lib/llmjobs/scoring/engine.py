"""Runs a unit's plan batch by batch and reads the log-likelihoods."""

import logging
from collections.abc import Callable, Sequence

from llmjobs.errors import ModelError
from llmjobs.scoring.batch import Batch, Option, build_batch
from llmjobs.scoring.forward import Model
from llmjobs.scoring.lengths import reset_frequencies, sharing_limit
from llmjobs.scoring.memory import free_memory, is_out_of_memory
from llmjobs.scoring.paths import CachedPath, Kept, Path, PlainPath, SharedPath
from llmjobs.scoring.plan import UnitPlan, plan_unit
from llmjobs.scoring.probe import ProbeResult, probe_paths
from llmjobs.scoring.reading import read_scores
from llmjobs.scoring.requests import Request, Score

__all__ = ["ProbeResult", "Scorer"]

log = logging.getLogger(__name__)


class Scorer:
    """Scores batches of a plan on one model.

    ``pad_token_id`` fills rows on the plain path; any token does. ``warn`` gets one line for whatever is
    not as asked (default: this module's logger). ``path`` is ``shared``, ``cached`` or ``plain`` (``paths``
    says what they do), set by :meth:`probe`; ``token_limit`` is the batch size that out-of-memory errors
    left (None: no limit). A run that is resumed sets both back, to compute what the unbroken run would.
    """

    def __init__(self, model: Model, pad_token_id: int = 0, warn: Callable[[str], None] = log.warning) -> None:
        self.model = model
        self.pad_token_id = pad_token_id
        self.warn = warn
        self.token_limit: int | None = None
        self._paths: dict[str, Path] = {
            "shared": SharedPath(model),
            "cached": CachedPath(model, pad_token_id),
            "plain": PlainPath(model, pad_token_id),
        }
        self.path = next(name for name, path in self._paths.items() if not path.refuses(model))
        self._plan: UnitPlan | None = None
        self._kept: Kept = {}
        model.eval()

    def probe(self, docs: Sequence[Sequence[Request]] = ()) -> ProbeResult:
        """Compare the paths on a few docs (made up where none are given) and choose, a refusal aloud."""
        refusals = {name: path.refuses(self.model) for name, path in self._paths.items()}
        found = probe_paths(self.model, refusals, self._score_by, docs)
        self.path, self._plan = found.path, None
        if found.path != "shared":
            self.warn(f"scoring on the {found.path} path: {found.reason}")
        return found

    def plan(
        self,
        docs: Sequence[Sequence[Request]],
        *,
        max_length: int,
        batch_tokens: int,
        prefix_token_id: int | None = None,
    ) -> UnitPlan:
        """Plan a unit (arguments as for ``plan_unit``) for the path that this model takes at the unit's lengths."""
        limit = sharing_limit(self.model)
        read = (max(len(one.context), 1) + len(one.continuation) - 1 for doc in docs for one in doc)
        longest = min(max(read, default=0), max_length)
        beyond = limit is not None and longest > limit
        if beyond and self.path != "plain":
            self.warn(f"inputs of up to {longest} tokens: positions change beyond {limit}, so nothing is shared")
        return plan_unit(
            docs,
            max_length=max_length,
            batch_tokens=batch_tokens,
            prefix_token_id=prefix_token_id,
            sharing=self.path != "plain" and not beyond,
            in_batch=self.path == "shared" and not beyond,
        )

    def path_of(self, plan: UnitPlan) -> str:
        """Return the path that a plan runs on: one that shares nothing is for the plain path."""
        return self.path if plan.sharing else "plain"

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
        self._paths.clear()
        self._plan = self.model = None
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
                raise ModelError(f"out of memory with one option of {batch.tokens} tokens: {error}") from error
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
            scores |= self._score(plan, build_batch(options, plan.placed, plan.in_batch))
        return scores

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
