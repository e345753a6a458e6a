"""Are mistakes patterned or random? Tests and effect sizes for subjects, letters, positions and lengths."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import chndtr, chndtrinc, ndtr

from llmjobs.statistics.calibration import separation
from llmjobs.statistics.intervals import Interval, normal_quantile
from llmjobs.statistics.overlap import match_variance
from llmjobs.statistics.paired import difference_from_counts, simultaneous_level

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pattern:
    """A test with its effect size: ``effect`` is Cramér's V, an area or a difference, depending on the test.

    ``size`` expresses the same in a form that is easier to picture, with an interval.
    """

    statistic: float
    df: int
    p: float
    effect: float
    size: Interval | None = None


def group_differences(
    correct: ArrayLike, groups: ArrayLike, *, draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> Pattern:
    """Test accuracy between groups: Pearson's χ², p by permutation, effect Cramér's V.

    Right and wrong are shuffled over the questions. The numbers right per group then follow a multivariate
    hypergeometric distribution, which is drawn directly. ``size`` is the spread of the groups' accuracies beyond what
    sampling gives (:func:`spread_between`).
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
    share = hits / total
    spread = spread_between(statistic, len(sizes) - 1, total, share, level)
    return Pattern(statistic, len(sizes) - 1, p, float(np.sqrt(statistic / total)), spread)


def spread_between(statistic: float, df: int, n: int, share: float, level: float = 0.95) -> Interval:
    """Return the standard deviation of the groups' true accuracies, weighted by size, with its interval.

    χ² is about noncentral with noncentrality ``n σ² / (p (1 - p))``: the value is ``max(0, χ² - df)`` turned into σ,
    the ends are the noncentralities under which the observed χ² is the upper or the lower 2.5 % point (Steiger and
    Fouladi 1997; Smithson, Confidence Intervals, 2003, section 5).
    """
    tail = (1 - level) / 2
    scale = share * (1 - share) / n
    ends = [
        0.0 if chndtr(statistic, df, 0.0) <= chance else float(chndtrinc(statistic, df, chance))
        for chance in (1 - tail, tail)
    ]
    low, high = ((scale * end) ** 0.5 for end in ends)
    value = (scale * max(0.0, statistic - df)) ** 0.5
    return Interval(value, low, max(high, value))


def mean_differences(values: ArrayLike, groups: ArrayLike, *, draws: int = 10_000, seed: int = 0) -> Pattern:
    """Test whether the mean of ``values`` differs between groups: F by permutation of the questions.

    ``values`` may be each question's mean over several models; then the models' answers to one question stay together.
    ``effect`` is η², the share of the variance that lies between groups.
    """
    numbers = np.asarray(values, dtype=float)
    labels = np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(labels)
    centred = numbers - numbers.mean() if len(numbers) else numbers
    whole = float(np.sum(centred**2))
    if len(sizes) < 2 or whole == 0:
        return Pattern(0.0, max(len(sizes) - 1, 0), 1.0, 0.0)
    between = float(np.sum(np.bincount(labels, weights=centred) ** 2 / sizes))
    rng = np.random.default_rng(seed)
    draws = int(np.clip(40_000_000 // len(numbers), 500, draws))
    order = np.argsort(labels, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    reached = 0
    for _ in range(draws):
        sums = np.add.reduceat(rng.permutation(centred[order]), starts)
        reached += float(np.sum(sums**2 / sizes)) >= between * (1 - 1e-12)
    return Pattern(between, len(sizes) - 1, (1 + reached) / (1 + draws), between / whole)


def letter_gaps(chosen: ArrayLike, gold: ArrayLike, options: int, level: float = 0.95) -> tuple[Interval, ...]:
    """Return, for each letter, the share of answers that choose it less the share where it is right.

    Paired on the same questions (Bonett and Price), at levels that hold for all letters together (Bonferroni). Unread
    answers (negative) are left out.
    """
    picks, right = np.asarray(chosen, dtype=np.int64), np.asarray(gold, dtype=np.int64)
    picks, right = picks[picks >= 0], right[picks >= 0]
    each = simultaneous_level(options, level)
    found = []
    for letter in range(options):
        more = int(np.sum((picks == letter) & (right != letter)))
        less = int(np.sum((picks != letter) & (right == letter)))
        gap = difference_from_counts(more, less, len(picks), each) if len(picks) else None
        found.append(Interval(gap.difference, gap.low, gap.high) if gap else Interval(0.0, -1.0, 1.0))
    return tuple(found)


def letters_alone(chosen: ArrayLike, gold: ArrayLike, options: int) -> tuple[float, float]:
    """Return the accuracy that the chosen letters would have if assigned to questions at random, and a p-value.

    p is one-sided for an accuracy above that: normal approximation with Hoeffding's variance of the number of matches
    (Ann. Math. Stat. 22 (1951) 558) and continuity correction. Unread answers (negative) are never right.
    """
    picks, right = np.asarray(chosen, dtype=np.int64), np.asarray(gold, dtype=np.int64)
    n = len(right)
    if not n:
        return float("nan"), 1.0
    rows = np.bincount(np.where(picks >= 0, picks, options), minlength=options + 1)
    columns = np.bincount(right, minlength=options + 1)
    mean = float(np.sum(rows[:options] * columns[:options])) / n
    variance = match_variance(rows, columns)
    same = int(np.sum(picks == right))
    p = float(ndtr((mean + 0.5 - same) / variance**0.5)) if variance > 0 else 1.0
    return mean / n, p


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


def position_dependence(
    correct: ArrayLike, gold: ArrayLike, *, draws: int = 10_000, seed: int = 0, level: float = 0.95
) -> Pattern:
    """Test whether accuracy depends on which letter is right: :func:`group_differences` by it."""
    return group_differences(correct, gold, draws=draws, seed=seed, level=level)


def length_dependence(correct: ArrayLike, lengths: ArrayLike, strata: ArrayLike, level: float = 0.95) -> Pattern:
    """Test whether longer questions are missed more often, within subjects.

    Mann-Whitney between right and wrong on the within-subject ranks; effect is the area under the curve:
    0.5 none, below 0.5 longer questions are missed more. ``size`` is the area with its interval.
    """
    size = np.asarray(lengths, dtype=float)
    labels = np.unique(np.asarray(strata), return_inverse=True)[1]
    ranks = np.empty(len(size))
    for label in range(int(labels.max(initial=-1)) + 1):
        here = labels == label
        ranks[here] = (stats.rankdata(size[here]) - 0.5) / here.sum()
    area, p = separation(ranks, correct)
    return Pattern(area, 1, p, area, area_interval(ranks, correct, level))


def area_interval(score: ArrayLike, group: ArrayLike, level: float = 0.95) -> Interval:
    """Return the area under the ROC curve with its interval; ``nan`` when one group is empty.

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837.
    """
    values, inside = np.asarray(score, dtype=float), np.asarray(group, dtype=bool)
    m, n = int(inside.sum()), int((~inside).sum())
    if not m or not n:
        return Interval(float("nan"), float("nan"), float("nan"))
    ranks = stats.rankdata(values)
    first = (ranks[inside] - stats.rankdata(values[inside])) / n
    second = 1 - (ranks[~inside] - stats.rankdata(values[~inside])) / m
    area = float(first.mean())
    variance = (float(first.var(ddof=1)) / m if m > 1 else 0.25) + (float(second.var(ddof=1)) / n if n > 1 else 0.25)
    half = normal_quantile(level) * variance**0.5
    return Interval(area, max(0.0, area - half), min(1.0, area + half))


def below_chance(correct: int, n: int, chance: float) -> float:
    """Return the one-sided exact p-value for an accuracy below ``chance`` (a binomial test)."""
    return float(stats.binomtest(correct, n, chance, alternative="less").pvalue) if n else 1.0


def above_chance(correct: int, n: int, chance: float) -> float:
    """Return the one-sided exact p-value for an accuracy above ``chance`` (a binomial test)."""
    return float(stats.binomtest(correct, n, chance, alternative="greater").pvalue) if n else 1.0
