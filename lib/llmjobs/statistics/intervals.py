"""Intervals for accuracies: of a list of questions, of subjects averaged, of clustered questions."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


def normal_quantile(level: float = 0.95) -> float:
    """Return the two-sided standard normal quantile, 1.96 at ``level`` 0.95."""
    return float(ndtri(0.5 + level / 2))


def wilson_arrays(successes: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """Return the ends of Wilson's score interval, elementwise; ``nan`` where ``n`` is 0.

    Source: Wilson, JASA 22 (1927) 209; recommended by Brown, Cai and DasGupta, Stat. Sci. 16 (2001) 101.
    """
    k, size = np.asarray(successes, dtype=float), np.asarray(n, dtype=float)
    z2 = normal_quantile(level) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        share = k / size
        centre = (share + z2 / (2 * size)) / (1 + z2 / size)
        half = np.sqrt(z2 * (share * (1 - share) / size + z2 / (4 * size**2))) / (1 + z2 / size)
        low = np.where(k == 0, np.where(size > 0, 0.0, np.nan), centre - half)
        high = np.where(k == size, np.where(size > 0, 1.0, np.nan), centre + half)
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of Wilson's score interval for ``successes`` of ``n``; both ``nan`` when ``n`` is 0.

    Raises ValueError when ``successes`` is not between 0 and ``n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be between 0 and n, got {successes} of {n}")
    low, high = wilson_arrays(successes, n, level)
    return float(low), float(high)


ACCURACY_INTERVAL = "95% Wilson"
"""Name of :func:`accuracy_interval` in summaries."""


def accuracy_interval(right: int, n: int) -> tuple[float, float]:
    """Return the ends of the interval that tables and figures show around an accuracy."""
    return wilson(right, n)


def proportion_stderr(successes: int, n: int) -> float:
    """Return ``sqrt(p (1 - p) / (n - 1))``, as lm-evaluation-harness prints it; ``nan`` below 2."""
    if n < 2:
        return float("nan")
    share = successes / n
    return float(np.sqrt(share * (1 - share) / (n - 1)))


def group_sums(values: ArrayLike, groups: ArrayLike) -> tuple[Floats, Floats]:
    """Return sums and sizes of ``values`` by group, groups in sorted order."""
    labels: NDArray[Any] = np.unique(np.asarray(groups), return_inverse=True)[1]
    numbers = np.asarray(values, dtype=float)
    sums = np.bincount(labels, weights=numbers).astype(np.float64)
    return sums, np.bincount(labels).astype(np.float64)


def macro_interval(correct: ArrayLike, groups: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of the groups' accuracies with its interval, the groups taken as given (strata).

    The variance is ``Σ p (1 - p) / n / J²`` over the J groups (Cochran, Sampling Techniques, 5.3), with two
    successes and two failures added to each group as in Agresti and Coull 1998, so that a group at 0 or 1
    does not count as certain.
    """
    sums, sizes = group_sums(correct, groups)
    if not len(sums):
        return Interval(float("nan"), float("nan"), float("nan"))
    value = float(np.mean(sums / sizes))
    shrunk = (sums + 2) / (sizes + 4)
    variance = float(np.sum(shrunk * (1 - shrunk) / (sizes + 4))) / len(sums) ** 2
    half = normal_quantile(level) * variance**0.5
    return Interval(value, max(0.0, value - half), min(1.0, value + half))


def clustered_interval(values: ArrayLike, clusters: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean with a cluster-robust interval: right when other clusters could have been drawn.

    ``SE² = C / (C - 1) · Σ_c (Σ_i (x_ci - x̄))² / n²`` with Student's t on C - 1 degrees of freedom
    (Miller, arXiv 2411.00640, section 2.2, with the small-sample factor of Cameron and Miller 2015). Ends
    are ``nan`` below two clusters.
    """
    numbers = np.asarray(values, dtype=float)
    if not len(numbers):
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(numbers.mean())
    sums, _ = group_sums(numbers - mean, clusters)
    count = len(sums)
    if count < 2:
        return Interval(mean, float("nan"), float("nan"))
    error = float(np.sqrt(count / (count - 1) * np.sum(sums**2))) / len(numbers)
    half = float(stdtrit(count - 1, 0.5 + level / 2)) * error
    return Interval(mean, mean - half, mean + half)
