"""Two models on the same questions: difference, interval, McNemar's exact test, Holm over pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from llmjobs.statistics.intervals import group_sums, normal_quantile


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
    discordant = only_first + only_second
    return float(stats.binomtest(only_first, discordant).pvalue) if discordant else 1.0


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
    half = stats.t.ppf(0.5 + level / 2, count - 1) * error
    return float(gaps.mean() - half), float(gaps.mean() + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number: Holm's step-down procedure (Scand. J. Stat. 6 (1979) 65)."""
    count = len(p_values)
    adjusted = [1.0] * count
    highest = 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
