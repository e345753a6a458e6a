"""What the scorers of all engines share: a probe that compares the paths, plans for the chosen one, halving batches."""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from llmjobs.benchmarks.scoring_requests import Request, Score
from llmjobs.engines.batches import Batch, Option, UnitPlan, build_batch, plan_unit
from llmjobs.engines.protocol import ProbeResult, Warn
from llmjobs.errors import ModelError


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


PATHS = ("shared", "cached", "plain")
"""What is shared among inputs: as much as the engine can; less; nothing, each input is computed alone."""
TOGETHER = "together"
"""Whole inputs as on the plain path, but several per batch: shows how far the model differs from itself."""
LEAST_ALLOWED, COARSE_ALLOWED = 1e-3, 0.05
"""Nats per scored token that rounding explains, for float32 files and for others. In the latter, each product rounds
its inputs to 8 or 16 bits: a value between two steps may fall either way if sums are in another order (we saw 1e-3).
"""
NOISE, MOST_ALLOWED = 2.0, 0.5
"""A path may differ from single inputs by twice as much as these differ from themselves in batches of another shape,
because kernels of quantized weights and of GPUs depend on the number of rows. The limit is half a nat.
"""
SMALL_BATCH, BATCH_TOKENS = 36, 512
"""Tokens per batch: the small size gives several batches after one kept prefix, the other puts all into one tree. From
32 tokens on, kernels for many rows are used.
"""
SHOT_TOKENS, QUESTION_TOKENS = 64, (5, 23, 17, 31)
"""Sizes of the made-up docs: small, because a large model on a CPU reads about ten tokens per second."""

ScoreBy = Callable[[str, UnitPlan], Mapping[int, Sequence[Score]]]
"""Computes the scores of a plan by one path: doc → scores of its options."""
Docs = Sequence[Sequence[Request]]


def choose_path(
    docs: Docs, vocabulary: int, max_length: int, score_by: ScoreBy, *, coarse: bool = False
) -> ProbeResult:
    """Try the paths in order and take the first that equals ``plain`` on ``docs`` or on random tokens.

    ``coarse``: the weights are not in float32.
    """
    docs = docs or made_up_docs(vocabulary, max_length)
    whole = plan_unit(docs, max_length=max_length, batch_tokens=BATCH_TOKENS, sharing=False)
    plain = score_by("plain", whole)
    if not all(math.isfinite(one.loglikelihood) for scores in plain.values() for one in scores):
        return ProbeResult("plain", None, "inputs run alone give values that are not numbers")
    allowed, said = COARSE_ALLOWED if coarse else LEAST_ALLOWED, ""
    reasons: list[str] = []
    largest: float | None = None
    for path in ("shared", "cached"):
        in_batch = path == "shared"
        sizes = (SMALL_BATCH, BATCH_TOKENS) if in_batch else (SMALL_BATCH,)
        plans = [plan_unit(docs, max_length=max_length, batch_tokens=size, in_batch=in_batch) for size in sizes]
        try:
            largest = max(_difference(docs, plain, score_by(path, plan)) for plan in plans)
        except ModelError as error:
            reasons.append(f"the {path} path failed: {error}")
            continue
        if largest > allowed and not said:
            noise = _difference(docs, plain, score_by(TOGETHER, whole))
            allowed = max(allowed, min(NOISE * noise, MOST_ALLOWED)) if math.isfinite(noise) else allowed
            said = f"; in batches of another shape the model differs from itself by {noise:.3g}"
        if largest <= allowed:
            right = f"equal to inputs run alone within {largest:.3g} nats{said}"
            return ProbeResult(path, largest, "; ".join([*reasons, right]))
        reasons.append(f"the {path} path differs by {largest:.3g} nats, rounding allows {allowed:.3g}{said}")
    return ProbeResult("plain", largest, "; ".join(reasons))


def _difference(docs: Docs, plain: Mapping[int, Sequence[Score]], other: Mapping[int, Sequence[Score]]) -> float:
    """Largest difference in nats per scored token; infinite if a value is not a number."""
    differences = [
        abs(one.loglikelihood - two.loglikelihood) / max(len(request.continuation), 1)
        for doc, scores in plain.items()
        for one, two, request in zip(scores, other[doc], docs[doc], strict=True)
    ]
    return max((one if math.isfinite(one) else math.inf for one in differences), default=0.0)


def made_up_docs(vocabulary: int, max_length: int) -> list[list[Request]]:
    """Make docs of various shapes: a few-shot prefix, several endings, one suffix after two contexts."""
    rng = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(vocabulary) for _ in range(min(count, max(1, max_length // 4))))

    shots = tokens(SHOT_TOKENS)
    letters = [tokens(1) for _ in range(4)]
    docs = [[Request(shots + question, letter) for letter in letters] for question in map(tokens, QUESTION_TOKENS)]
    context, suffix = tokens(20), tokens(6)
    docs.append([Request(context, tokens(count)) for count in (3, 9, 1, 7)])
    docs.append([Request(context + option, suffix) for option in (tokens(2), tokens(3))])
    return docs
