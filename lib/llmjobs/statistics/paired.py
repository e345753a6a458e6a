"""Two models on the same questions: difference, interval, exact tests, Holm over pairs, questions in clusters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtri, stdtrit

from llmjobs.statistics.intervals import group_sums, normal_quantile

FLIPS = 20_000
"""Number of random sign flips if the exact distribution would be too wide to compute."""
WIDEST = 400_000
"""Largest exact sign-flip distribution that is computed, in cells."""
GRIDS = (1, 2, 4, 10, 100)
"""The distribution is exact if one of these factors makes all sums whole numbers: for ratings in halves or tenths."""


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of the first model less that of the second, on ``n`` questions that both answered.

    ``only_first`` counts the questions that the first alone has right (McNemar's b), ``only_second`` the
    others (c). ``stderr`` is ``sqrt(Var A + Var B - 2 Cov)``; ``p`` is McNemar's exact two-sided value.
    """

    n: int
    difference: float
    low: float
    high: float
    stderr: float
    only_first: int
    only_second: int
    p: float


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test; 1 when no question tells the two apart.

    Source: McNemar 1947; a binomial test at one half on the discordant counts.
    """
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


def paired_difference(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> PairedDifference:
    """Return the difference of two lists of right (1) and wrong (0), question by question.

    The interval is Bonett and Price's (J. Educ. Behav. Stat. 37 (2012) 479): one added to each discordant
    count and two to n before the normal interval, which keeps its coverage where few questions tell the
    models apart.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"two lists of one length are needed, got shapes {a.shape} and {b.shape}")
    return difference_from_counts(int(np.sum(a & ~b)), int(np.sum(~a & b)), len(a), level)


def difference_from_counts(only_first: int, only_second: int, n: int, level: float = 0.95) -> PairedDifference:
    """Return what :func:`paired_difference` returns, from the two discordant counts of ``n`` questions."""
    up, down = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    half = normal_quantile(level) * np.sqrt((up + down - (up - down) ** 2) / (n + 2))
    difference = (only_first - only_second) / n
    spread = (only_first + only_second) / n - difference**2
    return PairedDifference(
        n=n,
        difference=difference,
        low=float(max(-1.0, up - down - half)),
        high=float(min(1.0, up - down + half)),
        stderr=float(np.sqrt(max(spread, 0.0) / (n - 1))) if n > 1 else float("nan"),
        only_first=only_first,
        only_second=only_second,
        p=mcnemar_exact(only_first, only_second),
    )


def clustered_difference(
    first: ArrayLike, second: ArrayLike, clusters: ArrayLike, level: float = 0.95
) -> tuple[float, float]:
    """Return the paired difference's interval for clusters of questions; ``nan`` below two clusters.

    Source: Miller, arXiv 2411.00640, sections 2.2 and 4.2, applied to the differences.
    """
    gaps = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    sums, _ = group_sums(gaps - gaps.mean(), clusters)
    count = len(sums)
    if count < 2:
        return float("nan"), float("nan")
    error = np.sqrt(count / (count - 1) * np.sum(sums**2)) / len(gaps)
    half = float(stdtrit(count - 1, 0.5 + level / 2)) * error
    return float(gaps.mean() - half), float(gaps.mean() + half)


def sign_flip_p(sums: ArrayLike, *, draws: int = FLIPS, seed: int = 0) -> float:
    """Return the two-sided p-value of the sum of ``sums``, one number per cluster, under random sign flips.

    If two conditions are exchangeable, a whole cluster (a conversation, a question with two turns) might as well have
    been recorded with the two swapped, however its questions depend on each other. Exact, by convolving ``±s``, if the
    sums lie on a grid as counts and ratings do; otherwise ``draws`` random flips. Source: Fisher 1935; Good,
    Permutation Tests (2000), section 3.
    """
    values = np.abs(np.asarray(sums, dtype=float))
    values = values[values > 0]
    observed = abs(float(np.sum(np.asarray(sums, dtype=float))))
    if not len(values):
        return 1.0
    for factor in GRIDS:
        whole = np.rint(values * factor)
        if np.allclose(whole, values * factor, rtol=0, atol=1e-9) and whole.sum() <= WIDEST:
            return _exact_flips(whole.astype(np.int64), round(observed * factor))
    rng = np.random.default_rng(seed)
    reached = 0
    step = max(1, 4_000_000 // len(values))
    for start in range(0, draws, step):
        signs = rng.integers(0, 2, size=(min(step, draws - start), len(values)), dtype=np.int8) * 2 - 1
        reached += int(np.sum(np.abs(signs @ values) >= observed * (1 - 1e-12)))
    return (1 + reached) / (1 + draws)


def _exact_flips(values: NDArray[np.int64], observed: int) -> float:
    """Return P(|Σ ±v| ≥ observed), building up the distribution of the sum cluster by cluster."""
    total = int(values.sum())
    chances = np.ones(1)
    for value in values:  # index i of ``chances`` stands for the sum i minus what was added so far
        grown = np.zeros(len(chances) + 2 * int(value))
        grown[: len(chances)] += chances / 2
        grown[2 * int(value) :] += chances / 2
        chances = grown
    places = np.abs(np.arange(len(chances)) - total) >= observed
    return min(1.0, float(chances[places].sum()))


def clustered_comparison(
    first: ArrayLike, second: ArrayLike, clusters: ArrayLike, level: float = 0.95
) -> PairedDifference:
    """Compare two lists of right and wrong whose questions are correlated within ``clusters``.

    ``p`` is :func:`sign_flip_p` over the clusters. The interval is the wider of the cluster-robust one and Bonett and
    Price's, end by end: the first alone collapses where every cluster shows the same difference. One cluster says
    nothing about others, so its interval is -1 to 1. With one question per cluster, ``p`` is McNemar's.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    plain = paired_difference(a, b, level)
    sums, sizes = group_sums(a.astype(float) - b.astype(float), clusters)
    if len(sizes) == plain.n:
        return plain
    low, high = clustered_difference(a, b, clusters, level)
    centred, _ = group_sums(a.astype(float) - b.astype(float) - plain.difference, clusters)
    count = len(sums)
    error = float(np.sqrt(count / (count - 1) * np.sum(centred**2))) / plain.n if count > 1 else float("nan")
    return PairedDifference(
        n=plain.n,
        difference=plain.difference,
        low=-1.0 if np.isnan(low) else max(-1.0, min(plain.low, low)),
        high=1.0 if np.isnan(high) else min(1.0, max(plain.high, high)),
        stderr=error,
        only_first=plain.only_first,
        only_second=plain.only_second,
        p=sign_flip_p(sums),
    )


def simultaneous_level(count: int, level: float = 0.95) -> float:
    """Return the level of each of ``count`` intervals that hold together with ``level`` (Bonferroni; Dunn 1961)."""
    return 1 - (1 - level) / max(count, 1)


def smallest_difference(n: int, discordant: float, *, level: float = 0.95, power: float = 0.8) -> float:
    """Return the true difference that ``n`` shared questions show with ``power``; at most 1, ``nan`` without any.

    ``discordant`` is the share of questions that only one of the two has right. Normal approximation of McNemar's test:
    ``(z_(1-α/2) √ψ + z_power √(ψ - δ²)) / √n = δ`` (Connor, Biometrics 43 (1987) 207), solved for δ.
    """
    if n < 1:
        return float("nan")
    found = (normal_quantile(level) + float(ndtri(power))) * (discordant / n) ** 0.5
    for _ in range(50):
        rest = max(discordant - found**2, 0.0)
        found = (normal_quantile(level) * discordant**0.5 + float(ndtri(power)) * rest**0.5) / n**0.5
    return float(min(found, 1.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number: Holm's step-down procedure (Scand. J. Stat. 6 (1979) 65)."""
    count = len(p_values)
    adjusted = [1.0] * count
    highest = 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class WeightedDifference:
    """Weighted mean accuracy of the first model less that of the second, on ``n`` shared questions in all.

    ``variance`` is that of one question: the variance of the difference times ``n``. With twice the questions of every
    benchmark, the interval's width falls by √2.
    """

    n: int
    difference: float
    low: float
    high: float
    variance: float


def weighted_difference(parts: Sequence[tuple[float, ArrayLike, ArrayLike]], level: float = 0.95) -> WeightedDifference:
    """Compare two models on several benchmarks: ``parts`` are weight, right answers of the first, of the second.

    The weights are divided by their sum. One benchmark gives the interval of :func:`paired_difference`. For several,
    Bonett and Price's centres and variances are added with the weights, because the benchmarks' questions are
    independent of each other.

    Raises ValueError for no part, an empty one, or weights that are not above 0.
    """
    total = sum(weight for weight, _, _ in parts)
    if not parts or min(weight for weight, _, _ in parts) <= 0:
        raise ValueError("at least one benchmark is needed, each with a weight above 0")
    difference, centre, variance, count = 0.0, 0.0, 0.0, 0
    for weight, first, second in parts:
        one = paired_difference(first, second, level)
        share = weight / total
        up, down = (one.only_first + 1) / (one.n + 2), (one.only_second + 1) / (one.n + 2)
        difference += share * one.difference
        centre += share * (up - down)
        variance += share**2 * (up + down - (up - down) ** 2) / (one.n + 2)
        count += one.n
    half = normal_quantile(level) * variance**0.5
    return WeightedDifference(count, difference, max(-1.0, centre - half), min(1.0, centre + half), variance * count)


def questions_needed(gap: float, variance: float, *, level: float = 0.95, power: float = 0.8) -> float:
    """Return how many shared questions show a distance of ``gap`` with ``power``; infinite for no distance.

    ``gap`` is the distance between the true difference and what it is compared with (0, or the end of a margin);
    ``variance`` is that of one question's difference. ``n = (z_(1-α/2) + z_power)² · variance / gap²``, the normal
    approximation for paired questions (Miller, arXiv 2411.00640, section 5).
    """
    if gap == 0:
        return float("inf")
    return (normal_quantile(level) + float(ndtri(power))) ** 2 * variance / gap**2
