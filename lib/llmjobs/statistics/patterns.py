"""Are mistakes patterned or random? Subjects, letters, positions, lengths: test and effect size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from llmjobs.statistics.calibration import separation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pattern:
    """A test with its size: ``effect`` is Cramér's V, an area or a difference, as its maker says."""

    statistic: float
    df: int
    p: float
    effect: float


def group_differences(correct: ArrayLike, groups: ArrayLike, *, draws: int = 10_000, seed: int = 0) -> Pattern:
    """Test accuracy between groups: Pearson's χ², p by permutation, effect Cramér's V.

    Right and wrong are shuffled over the questions; group by group the number right is then multivariate
    hypergeometric, which is drawn directly.
    """
    right = np.asarray(correct, dtype=bool)
    labels = np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(labels)
    total, hits = len(right), int(right.sum())
    if len(sizes) < 2 or hits in (0, total):
        return Pattern(0.0, max(len(sizes) - 1, 0), 1.0, 0.0)
    observed = np.bincount(labels, weights=right)
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(sizes, hits, size=draws, method="marginals")
    expected = sizes * hits / total
    scale = total / (total - hits)
    statistic = float(np.sum((observed - expected) ** 2 / expected) * scale)
    simulated = np.sum((drawn - expected) ** 2 / expected, axis=1) * scale
    p = float((1 + np.sum(simulated >= statistic * (1 - 1e-12))) / (1 + draws))
    return Pattern(statistic, len(sizes) - 1, p, float(np.sqrt(statistic / total)))


def letter_preference(chosen: ArrayLike, gold: ArrayLike, options: int) -> tuple[Ints, Ints, Pattern]:
    """Compare how often each letter is chosen with how often it is right: counts, counts, and the test.

    Both are counted over the same questions, so the test is paired: Stuart and Maxwell's of marginal
    homogeneity (Stuart 1955, Maxwell 1970). Effect: half the summed absolute difference of the shares, the
    share of answers that would have to move (0 to 1). Unread answers (negative) are left out.
    """
    picks, right = np.asarray(chosen, dtype=np.int64), np.asarray(gold, dtype=np.int64)
    read = picks >= 0
    table = np.zeros((options, options))
    np.add.at(table, (picks[read], right[read]), 1)
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    n = float(table.sum())
    effect = float(np.abs(rows - columns).sum()) / 2 / n if n else 0.0
    statistic, df = stuart_maxwell(table)
    pattern = Pattern(statistic, df, float(stats.chi2.sf(statistic, df)) if df else 1.0, effect)
    return rows.astype(np.int64), columns.astype(np.int64), pattern


def stuart_maxwell(table: Floats) -> tuple[float, int]:
    """Return the Stuart-Maxwell χ² and its degrees of freedom; letters never used are left out."""
    used = (table.sum(axis=0) + table.sum(axis=1)) > 0
    square = table[np.ix_(used, used)]
    gaps = square.sum(axis=1) - square.sum(axis=0)
    covariance = -(square + square.T)
    np.fill_diagonal(covariance, square.sum(axis=1) + square.sum(axis=0) - 2 * np.diag(square))
    df = int(np.linalg.matrix_rank(covariance)) if len(square) else 0
    return (float(gaps @ np.linalg.pinv(covariance) @ gaps), df) if df else (0.0, 0)


def position_dependence(correct: ArrayLike, gold: ArrayLike, *, draws: int = 10_000, seed: int = 0) -> Pattern:
    """Test whether accuracy depends on which letter is right: :func:`group_differences` by it."""
    return group_differences(correct, gold, draws=draws, seed=seed)


def length_dependence(correct: ArrayLike, lengths: ArrayLike, strata: ArrayLike) -> Pattern:
    """Test whether longer questions are missed more often, within subjects.

    Mann-Whitney between right and wrong on the within-subject ranks; effect is the area under the curve:
    0.5 none, below 0.5 longer questions are missed more.
    """
    size = np.asarray(lengths, dtype=float)
    labels = np.unique(np.asarray(strata), return_inverse=True)[1]
    ranks = np.empty(len(size))
    for label in range(int(labels.max(initial=-1)) + 1):
        here = labels == label
        ranks[here] = (stats.rankdata(size[here]) - 0.5) / here.sum()
    area, p = separation(ranks, correct)
    return Pattern(area, 1, p, area)


def below_chance(correct: int, n: int, chance: float) -> float:
    """Return the one-sided exact p-value for an accuracy below ``chance`` (a binomial test)."""
    return float(stats.binomtest(correct, n, chance, alternative="less").pvalue) if n else 1.0


def above_chance(correct: int, n: int, chance: float) -> float:
    """Return the one-sided exact p-value for an accuracy above ``chance`` (a binomial test)."""
    return float(stats.binomtest(correct, n, chance, alternative="greater").pvalue) if n else 1.0
