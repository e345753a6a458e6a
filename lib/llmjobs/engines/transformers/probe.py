"""Check whether the shared path is correct for this model, by comparing a few inputs with a plain forward."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch

from llmjobs.benchmarks.requests import Request, Score
from llmjobs.engines.plan import Option, UnitPlan, plan_unit
from llmjobs.engines.protocol import ProbeResult
from llmjobs.engines.transformers.lengths import most_tokens as longest_input
from llmjobs.engines.transformers.lengths import sharing_limit
from llmjobs.engines.transformers.quantize import is_quantized, scoring_nats
from llmjobs.errors import plain_reason

TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
"""The largest difference of a log-likelihood (nats per scored token) that rounding explains."""
NOISE, MOST_NOISE = 2.0, 1.0
"""A quantized model in 16 bits differs more from itself. A path may differ from a plain forward by twice as much as
plain forwards in batches of two shapes differ, but by at most one nat. Only measured if the fixed limit is exceeded.
"""
ROUNDINGS = 3
"""This many units in the last place of a log-likelihood are rounding too: in 16 bits a logit of 20 is rounded by a
tenth, and unlikely tokens have large logits. A demo model's plain forward in bfloat16 is 2.1 units off its float32 one.
"""
PROBE_TOKENS, TOGETHER_TOKENS = 96, 4096
"""Sizes of a batch when paths are compared, and when a plain forward is compared with itself."""
USUAL_TOKENS, FEW_TOKENS, FEW_PROBE_TOKENS = 1300, 500, 20
"""Total tokens of made-up docs, read plainly and shared: usually, and for a small study; then of its batch."""

ScoreBy = Callable[[str, UnitPlan], list[Score]]


@dataclass(frozen=True)
class ScoringProbe(ProbeResult):
    """The scoring path of a model and the reason; ``max_difference`` in nats per scored token, None if nothing ran."""

    PATHS: ClassVar[Sequence[str] | None] = ("shared", "cached", "plain")


def probe_paths(
    model: Any,
    refusals: Mapping[str, str | None],
    score_by: ScoreBy,
    docs: Sequence[Sequence[Request]],
    *,
    most_tokens: int | None = None,
) -> ScoringProbe:
    """Try the paths in order and take the first that equals ``plain`` on ``docs`` or on random tokens.

    ``most_tokens``: below :data:`USUAL_TOKENS`, the made-up docs are smaller.
    """
    max_length = sharing_limit(model) or longest_input(model)
    few = most_tokens is not None and most_tokens < USUAL_TOKENS
    docs = docs or made_up_docs(model.config.get_text_config().vocab_size, max_length, few=few)
    plan = plan_unit(docs, max_length=max_length, batch_tokens=FEW_PROBE_TOKENS if few else PROBE_TOKENS)
    plain = score_by("plain", plan)
    if not all(math.isfinite(one.loglikelihood) for one in plain):
        return ScoringProbe("plain", None, "a plain forward gives values that are not numbers")
    noise = _Noise(model, docs, plan, plain, score_by)
    reasons: list[str] = []
    for path in ("shared", "cached"):
        differences, reason = None, refusals[path]
        if reason is None:
            differences, reason = _compare(path, plan, plain, score_by, model)
        if differences is None:
            reasons.append(str(reason))
            continue
        worst = max(differences, key=lambda one: one.nats / one.allowed)
        largest = max(one.nats for one in differences)
        if worst.nats > worst.allowed:
            differences = [replace(one, allowed=max(one.allowed, noise.allowed)) for one in differences]
            worst = max(differences, key=lambda one: one.nats / one.allowed)
        if worst.nats <= worst.allowed:
            right = f"equal to a plain forward within {max(largest, allowed_difference(model)):.3g}{noise.said}"
            return ScoringProbe(path, largest, "; ".join([*reasons, right]))
        reasons.append(f"the {path} path differs by {worst.nats:.3g}, rounding allows {worst.allowed:.3g}")
    return ScoringProbe("plain", max(one.nats for one in differences) if differences else None, "; ".join(reasons))


class _Noise:
    """How much a quantized model's plain forward differs from itself in other batch shapes; measured on demand."""

    def __init__(
        self, model: Any, docs: Sequence[Sequence[Request]], plan: UnitPlan, plain: Sequence[Score], score_by: ScoreBy
    ) -> None:
        self._docs, self._plan, self._plain, self._score_by = docs, plan, plain, score_by
        self._quantized = is_quantized(model)
        self.said = ""

    @cached_property
    def allowed(self) -> float:
        """The difference that noise explains, in nats per scored token; 0 for a model that is not quantized."""
        if not self._quantized:
            return 0.0
        together = plan_unit(self._docs, max_length=self._plan.max_length, batch_tokens=TOGETHER_TOKENS)
        once, again = _by_option(self._plan, self._plain), _by_option(together, self._score_by("plain", together))
        difference = max(abs(once[at].loglikelihood - again[at].loglikelihood) / once[at].tokens for at in once)
        self.said = f"; in batches of another shape it differs from itself by {difference:.3g}"
        return own_noise(difference)


@dataclass(frozen=True)
class _Scored:
    loglikelihood: float
    tokens: int


def _by_option(plan: UnitPlan, scores: Sequence[Score]) -> dict[Option, _Scored]:
    """Return the scores of a plan by doc and option."""
    sizes = {
        option: len(reading.targets)
        for batch in plan.batches
        for option, reading in zip(batch.options, batch.readings, strict=True)
    }
    order = [
        option for batch in plan.batches for doc in batch.docs for option in sorted(batch.options) if option[0] == doc
    ]
    pairs = zip(order, scores, strict=True)
    return {option: _Scored(score.loglikelihood, sizes[option]) for option, score in pairs}


@dataclass(frozen=True)
class _Difference:
    """The difference of one request between two paths, in nats per scored token."""

    nats: float
    allowed: float
    """The difference that rounding explains for a token of this likelihood."""


def _compare(
    path: str, plan: UnitPlan, plain: Sequence[Score], score_by: ScoreBy, model: Any
) -> tuple[list[_Difference] | None, str | None]:
    """Return the differences of all requests, or None and the reason."""
    try:
        found = score_by(path, plan)
    except Exception as error:  # a foreign model's code may raise anything, and the plain path remains
        return None, f"the {path} path failed: {plain_reason(error, 200)}"
    lengths = [len(one.targets) for batch in plan.batches for one in batch.readings]
    pairs = zip(found, plain, lengths, strict=True)
    least, unit = allowed_difference(model), ROUNDINGS * torch.finfo(model.dtype).eps
    return [
        _Difference(
            abs(one.loglikelihood - other.loglikelihood) / size, max(least, unit * abs(other.loglikelihood) / size)
        )
        for one, other, size in pairs
    ], None


def made_up_tokens(most_tokens: int | None) -> int:
    """Approximate number of tokens that a comparison reads if it may read ``most_tokens``."""
    return USUAL_TOKENS if most_tokens is None or most_tokens >= USUAL_TOKENS else FEW_TOKENS


def probe_size(most_tokens: int | None) -> tuple[int, float]:
    """Tokens per batch and number of batches of a comparison that may read ``most_tokens``."""
    size = PROBE_TOKENS if made_up_tokens(most_tokens) == USUAL_TOKENS else FEW_PROBE_TOKENS
    return size, made_up_tokens(most_tokens) / size


def made_up_docs(vocabulary: int, max_length: int, *, few: bool = False) -> list[list[Request]]:
    """Make docs of various shapes: few-shot prefixes, several endings, one suffix after two contexts.

    With ``few``, they have about :data:`FEW_TOKENS`, plain and shared together, instead of :data:`USUAL_TOKENS`.
    """
    rng = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(vocabulary) for _ in range(min(count, max(1, max_length // 4))))

    shots = tokens(40 if few else 160)
    letters = [tokens(1) for _ in range(4)]
    questions = (5, 20, 30) if few else (5, 23, 40, 31)
    docs = [[Request(shots + question, letter) for letter in letters] for question in map(tokens, questions)]
    context, suffix = tokens(30), tokens(6)
    docs.append([Request(context, tokens(count)) for count in ((3, 7) if few else (3, 9, 1, 7))])
    docs.append([Request(context + option, suffix) for option in (tokens(2), tokens(3))])
    return docs


def allowed_difference(model: Any) -> float:
    """Return the difference per scored token that rounding explains at the model's precision, for any likelihood."""
    allowed = TOLERANCE.get(model.dtype, TOLERANCE[torch.bfloat16])
    return max(allowed, scoring_nats(model)) if is_quantized(model) else allowed


def own_noise(self_difference: float) -> float:
    """Return how much another path may differ for a model that differs from itself by ``self_difference``."""
    return min(NOISE * self_difference, MOST_NOISE) if math.isfinite(self_difference) else 0.0
