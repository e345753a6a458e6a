"""What the scorers of all engines share: the path that a probe chose, plans for it, and halving batches."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from llmjobs.benchmarks.requests import Request, Score
from llmjobs.engines.plan import Batch, Option, UnitPlan, build_batch, plan_unit
from llmjobs.engines.protocol import ProbeResult, Warn


class PathScorer(ABC):
    """The base of a ``protocol.Scorer`` whose batches run on one of the paths ``shared``, ``cached`` and ``plain``.

    ``shared`` computes a batch as one tree of segments behind kept prefixes, ``cached`` only shares the kept prefixes,
    ``plain`` nothing. An engine computes a batch in :meth:`compute`.
    """

    RESULT: ClassVar[type[ProbeResult]] = ProbeResult
    """Type of its probe's result."""
    ALONE: ClassVar[Sequence[str]] = ()
    """Paths in addition to the three, for plans that share nothing."""

    def __init__(self, path: str, warn: Warn) -> None:
        """``path`` is used until a probe has run."""
        self.path, self.warn = path, warn
        self.token_limit: int | None = None

    def can_take(self, path: str) -> bool:
        """Whether this model can use a path that an earlier probe chose."""
        return True

    def cannot_share(self, docs: Sequence[Sequence[Request]], max_length: int) -> bool:
        """Whether these docs must not share anything, on any path."""
        return False

    def start(self, plan: UnitPlan, at: int) -> None:  # noqa: B027 (nothing to prepare is right for some)
        """Prepare for batch ``at`` of a plan."""

    def is_too_large(self, plan: UnitPlan, batch: Batch) -> bool:
        """Whether a batch must be halved."""
        return self.token_limit is not None and batch.tokens > self.token_limit

    @abstractmethod
    def compute(self, plan: UnitPlan, batch: Batch) -> list[Score] | None:
        """Scores of ``batch.options`` in order; None if memory ran out and the batch must be halved."""

    def take(self, found: ProbeResult) -> None:
        """Use the path that a probe chose; a slower one gives a warning."""
        self.path = found.path
        if found.path != "shared":
            self.warn(f"scoring on the {found.path} path: {found.reason}")

    def recall(self, found: object) -> ProbeResult | None:
        """Use the record of an earlier probe of the same model; None, without a change, if it does not apply."""
        kept = self.RESULT.from_builtin(found)
        if kept is None or not self.can_take(kept.path):
            return None
        self.take(kept)
        return kept

    def plan(
        self,
        docs: Sequence[Sequence[Request]],
        *,
        max_length: int,
        batch_tokens: int,
        prefix_token_id: int | None = None,
    ) -> UnitPlan:
        """Plan a unit (arguments as for ``plan_unit``) for the path that this model takes at the unit's lengths."""
        alone = self.path == "plain" or self.cannot_share(docs, max_length)
        return plan_unit(
            docs,
            max_length=max_length,
            batch_tokens=batch_tokens,
            prefix_token_id=prefix_token_id,
            sharing=not alone,
            in_batch=self.path == "shared" and not alone,
        )

    def path_of(self, plan: UnitPlan) -> str:
        """The path that a plan runs on; a plan that shares nothing runs on the plain path."""
        return self.path if plan.sharing or self.path in self.ALONE else "plain"

    def score_batch(self, plan: UnitPlan, at: int) -> list[list[Score]]:
        """Scores of batch ``at``: a list for each of ``plan.batches[at].docs``, in option order.

        The result does not depend on which batches ran before.

        Raises:
            ModelError: it cannot be computed, for example because not even one option fits into memory.

        """
        self.start(plan, at)
        scores = self._score(plan, plan.batches[at])
        by_doc: dict[int, list[Score]] = {doc: [] for doc in plan.batches[at].docs}
        for doc, option in sorted(scores):
            by_doc[doc].append(scores[doc, option])
        return list(by_doc.values())

    def scores_by(self, path: str, plan: UnitPlan) -> dict[int, list[Score]]:
        """Scores of a whole plan on one path, by doc, for a probe."""
        self.path = path
        found: dict[int, list[Score]] = {}
        for at, batch in enumerate(plan.batches):
            found |= dict(zip(batch.docs, self.score_batch(plan, at), strict=True))
        return found

    def _score(self, plan: UnitPlan, batch: Batch) -> dict[Option, Score]:
        can_halve = len(batch.options) > 1
        if not (can_halve and self.is_too_large(plan, batch)) and (found := self.compute(plan, batch)) is not None:
            return dict(zip(batch.options, found, strict=True))
        scores: dict[Option, Score] = {}
        for options in halves(batch):
            scores |= self._score(plan, build_batch(options, plan.placed, plan.in_batch))
        return scores


def halves(batch: Batch) -> tuple[tuple[Option, ...], tuple[Option, ...]]:
    """Split a batch between docs, or between the options of its only doc."""
    docs = batch.docs
    first = set(docs[: len(docs) // 2])
    cut = sum(doc in first for doc, _ in batch.options) or len(batch.options) // 2
    return batch.options[:cut], batch.options[cut:]
