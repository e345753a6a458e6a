"""Check whether the shared path is correct for this model on this machine, on a few inputs."""

import math
import random
from collections.abc import Callable, Mapping, Sequence

from llmjobs.benchmarks.requests import Request, Score
from llmjobs.engines.plan import UnitPlan, plan_unit
from llmjobs.engines.protocol import ProbeResult
from llmjobs.errors import ModelError

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
