"""How far one distribution of the next token is from another: 16-bit storage, KL divergence, summary by text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmjobs.statistics.intervals import Interval, clustered_interval

RANGE_NATS = 16.0
"""Log-probabilities are kept down to so far below the largest one, as in llama-perplexity; what is less likely is one
bucket, the rest."""
STEPS = 65534
BOOTSTRAPS = 1000
FEWEST_FOR_P99 = 100
"""Values below which a 99th percentile says nothing."""


@dataclass(frozen=True)
class Stored:
    """Log-probabilities [positions, vocabulary] in 16 bits.

    ``steps`` 0 is a token in the rest; ``n`` from 1 is ``lowest + scale * (n - 1)`` nats. ``heads`` [positions, 3]
    holds ``scale``, ``lowest`` and the probability of the rest.
    """

    heads: NDArray[np.float32]
    steps: NDArray[np.uint16]


def store(logprobs: ArrayLike) -> Stored:
    """Round log-probabilities [positions, vocabulary] to 16 bits.

    The largest step is 16 / 65,534 = 0.00024 nats, so that a kept one is off by at most 0.00012.
    """
    values = np.asarray(logprobs, dtype=np.float32)
    heads = np.empty((len(values), 3), np.float32)
    steps = np.empty(values.shape, np.uint16)
    for at, row in enumerate(values.astype(np.float64)):
        top = float(row.max())
        kept = row >= top - RANGE_NATS
        lowest = float(row[kept].min())
        scale = (top - lowest) / STEPS
        rounded = np.rint((row[kept] - lowest) / scale) if scale else np.zeros(int(kept.sum()))
        steps[at] = 0
        steps[at, kept] = rounded + 1
        heads[at] = scale, lowest, np.exp(row[~kept]).sum()
    return Stored(heads, steps)


def kl_divergence(stored: Stored, logprobs: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """KL(reference ‖ other) in nats at each position, and whether both have the same most likely token.

    ``stored`` is the reference, ``logprobs`` [positions, vocabulary] the other one. ``Σ p (log p - log q)`` over the
    reference's kept tokens, scaled so that they and the rest sum to one, and the rest as one more outcome: never
    negative, and a lower bound of the divergence over the whole vocabulary (data processing inequality; Cover and
    Thomas, Elements of Information Theory, section 2.8).
    """
    values = np.asarray(logprobs, dtype=np.float32)
    found, same = np.empty(len(values)), np.empty(len(values), np.bool_)
    for at, (head, steps) in enumerate(zip(stored.heads.astype(np.float64), stored.steps, strict=True)):
        other = values[at].astype(np.float64)
        other -= _log_sum_exp(other)
        kept = steps > 0
        own = head[1] + head[0] * (steps[kept].astype(np.float64) - 1)
        rest = min(max(head[2], 0.0), 1.0)
        own += np.log1p(-rest) - _log_sum_exp(own)
        total = float(np.sum(np.exp(own) * (own - other[kept])))
        if rest > 0:
            left = max(float(np.exp(other[~kept]).sum()), 1e-300)
            total += rest * (np.log(rest) - np.log(left))
        found[at] = max(total, 0.0)
        same[at] = int(steps.argmax()) == int(other.argmax())
    return found, same


def _log_sum_exp(row: NDArray[np.float64]) -> float:
    top = float(row.max())
    return top + float(np.log(np.exp(row - top).sum()))


@dataclass(frozen=True)
class Divergence:
    """The divergence over ``positions`` of ``texts``; intervals say what other texts might have given."""

    positions: int
    texts: int
    mean: Interval
    median: Interval
    p99: Interval | None
    """None with fewer positions than a percentile needs."""
    same_top: Interval
    """Share of positions where both have the same most likely token."""
    perplexity_ratio: Interval | None
    """Perplexity of the other model on the text, divided by the reference's; None if no next token is known."""


def summarize(
    kl: ArrayLike,
    same_top: ArrayLike,
    texts: Sequence[int],
    nll: ArrayLike | None = None,
    nll_reference: ArrayLike | None = None,
    level: float = 0.95,
) -> Divergence:
    """Summarize positions; ``texts`` says which text each belongs to, ``nll`` are negative log-likelihoods in nats.

    Means, shares and the ratio (of logarithms) have cluster-robust intervals (:func:`clustered_interval`), percentiles
    a bootstrap of whole texts.
    """
    values = np.asarray(kl, dtype=float)
    count = len(set(texts))
    mean = clustered_interval(values, texts, level)
    share = clustered_interval(np.asarray(same_top, dtype=float), texts, level)
    ratio = None
    if nll is not None and nll_reference is not None and len(np.asarray(nll)):
        gap = clustered_interval(np.asarray(nll, dtype=float) - np.asarray(nll_reference, dtype=float), texts, level)
        ratio = Interval(*(float(np.exp(one)) for one in gap))
    quantiles = _quantiles(values, np.asarray(texts), (0.5, 0.99), level)
    return Divergence(
        positions=len(values),
        texts=count,
        mean=Interval(mean.value, max(mean.low, 0.0) if count > 1 else mean.low, mean.high),
        median=quantiles[0],
        p99=quantiles[1] if len(values) >= FEWEST_FOR_P99 else None,
        same_top=Interval(share.value, _clipped(share.low), _clipped(share.high)),
        perplexity_ratio=ratio,
    )


def _clipped(share: float) -> float:
    return share if np.isnan(share) else min(max(share, 0.0), 1.0)


def _quantiles(
    values: NDArray[np.float64], texts: NDArray[np.int64], wanted: Sequence[float], level: float
) -> list[Interval]:
    """Quantiles (linear between values, as llama-perplexity's), with percentile intervals from resampled texts."""
    names = np.unique(texts)
    groups = [values[texts == name] for name in names]
    nothing = float("nan")
    plain = [float(np.quantile(values, one)) if len(values) else nothing for one in wanted]
    if len(groups) < 2:
        return [Interval(value, nothing, nothing) for value in plain]
    rng = np.random.default_rng(0)
    drawn = np.empty((BOOTSTRAPS, len(wanted)))
    for at in range(BOOTSTRAPS):
        chosen = rng.integers(0, len(groups), len(groups))
        drawn[at] = np.quantile(np.concatenate([groups[one] for one in chosen]), wanted)
    ends = np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2), axis=0)
    return [Interval(value, float(ends[0, at]), float(ends[1, at])) for at, value in enumerate(plain)]
