"""Do two models, or all of them, miss the same questions? Always compared with what independence would give."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, ndtr, stdtrit

from llmjobs.statistics.intervals import Interval, normal_quantile, wilson

ALL_DRAWS = 10_000
"""Draws of the test whether all models miss the same questions."""


Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
FEW = 10
"""Below this number of questions that all models miss, the normal approximation of their excess does not hold."""


@dataclass(frozen=True)
class ErrorOverlap:
    """The errors of two models on ``n`` questions: counts, what independence expects, and how alike they are.

    ``expected`` multiplies the two error rates over all questions, ``expected_in_strata`` within each subject, so that
    a hard subject alone does not count as agreement; ``p`` is exact and one-sided against the latter. ``phi``,
    ``jaccard`` and ``kappa`` are ``nan`` where they are undefined (a model with all or no errors).
    """

    n: int
    first_wrong: int
    second_wrong: int
    both_wrong: int
    expected: float
    expected_in_strata: float
    p: float
    phi: float
    jaccard: float
    jaccard_expected: float
    kappa: float


def phi(first: ArrayLike, second: ArrayLike) -> float:
    """Return Pearson's r of two lists of zeros and ones, φ; ``nan`` when one never varies."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    spread = a.std() * b.std()
    return float(((a * b).mean() - a.mean() * b.mean()) / spread) if spread > 0 else float("nan")


def error_consistency(first: ArrayLike, second: ArrayLike) -> float:
    """Return Geirhos' error consistency κ of two lists of right and wrong (arXiv 2006.16736).

    ``κ = (o - e) / (1 - e)``, o the share of questions both right or both wrong, ``e = a₁a₂ + (1 - a₁)(1 -
    a₂)``.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    observed, mean_a, mean_b = float(np.mean(a == b)), float(a.mean()), float(b.mean())
    expected = mean_a * mean_b + (1 - mean_a) * (1 - mean_b)
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


def stratum_counts(wrong: ArrayLike, strata: ArrayLike) -> tuple[Ints, Ints]:
    """Return errors by model and stratum (models × strata) and the strata's sizes, strata in sorted order.

    ``wrong`` has one row per model and one column per question.
    """
    table = np.atleast_2d(np.asarray(wrong, dtype=bool))
    labels = np.unique(np.asarray(strata), return_inverse=True)[1]
    sizes = np.bincount(labels)
    counts = np.array([np.bincount(labels, weights=row, minlength=len(sizes)) for row in table])
    return counts.round().astype(np.int64), sizes.astype(np.int64)


def permuted_all_wrong(counts: Ints, sizes: Ints, draws: int = ALL_DRAWS, seed: int = 0) -> Ints:
    """Draw how many questions every model misses when errors are shuffled within strata.

    Exact sampling of that permutation distribution without shuffling: given that the first j models share x
    errors in a stratum of n, the next model with m errors shares hypergeometric(n, x, m) of them.
    """
    rng = np.random.default_rng(seed)
    shared = np.broadcast_to(counts[0], (draws, len(sizes))).copy()
    for row in counts[1:]:
        shared = rng.hypergeometric(shared, sizes - shared, np.broadcast_to(row, shared.shape))
    return np.asarray(shared.sum(axis=1), dtype=np.int64)


def upper_p(observed: int, drawn: Ints) -> float:
    """Return the one-sided Monte Carlo p-value ``(1 + #{drawn ≥ observed}) / (1 + draws)``.

    Source: Davison and Hinkley, Bootstrap Methods and their Application (1997), equation 4.11.
    """
    return float((1 + np.sum(drawn >= observed)) / (1 + len(drawn)))


def shared_wrong_p(first: Ints, second: Ints, sizes: Ints, observed: int) -> float:
    """Return the exact one-sided p-value of ``observed`` shared errors, errors being shuffled within strata.

    ``first`` and ``second`` hold the two models' errors by stratum. Within a stratum the shared errors are
    hypergeometric (Fisher's exact test); over strata the distributions are convolved, as in the exact conditional test
    of Mantel and Haenszel (Mehta, Patel and Gray, JASA 80 (1985) 969).
    """
    chances, lowest = np.ones(1), 0
    for a, b, n in zip(first.tolist(), second.tolist(), sizes.tolist(), strict=True):
        start, end = max(0, a + b - n), min(a, b)
        shared = np.arange(start, end + 1)
        logs = _choose(a, shared) + _choose(n - a, b - shared) - _choose(n, np.array(b))
        chances, lowest = np.convolve(chances, np.exp(logs)), lowest + start
    return float(min(1.0, max(0.0, chances[max(0, observed - lowest) :].sum())))


def _choose(n: int, k: Ints) -> Floats:
    """Return the logarithm of ``n`` over ``k``."""
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), dtype=np.float64)


def all_wrong_excess(wrong: ArrayLike, strata: ArrayLike, level: float = 0.95) -> Interval:
    """Return how many more questions all models miss than independence within strata gives, with its interval.

    ``wrong`` has one row per model. In a stratum of n questions the excess is ``Σ_i Π_k w_ki - n Π_k p_k``; by the
    delta method its variance is n times that of ``Π_k w_ki - Σ_k w_ki Π_(j≠k) p_j`` over the questions, which allows
    for the error rates being estimated from the same questions (van der Vaart, Asymptotic Statistics, chapter 3). With
    fewer than :data:`FEW` questions that all miss, this is a poor approximation, so the ends are those of Wilson's
    interval for their number, less the expectation.
    """
    table = np.atleast_2d(np.asarray(wrong, dtype=float))
    labels = np.unique(np.asarray(strata), return_inverse=True)[1]
    value = variance = 0.0
    for label in range(int(labels.max(initial=-1)) + 1):
        part = table[:, labels == label]
        n, rates = part.shape[1], part.mean(axis=1)
        others = np.array([np.prod(np.delete(rates, k)) for k in range(len(rates))])
        together = part.prod(axis=0)
        value += float(together.sum()) - n * float(np.prod(rates))
        if n > 1:
            variance += n * float(np.var(together - others @ part, ddof=1))
    half = normal_quantile(level) * variance**0.5
    number, questions = int(table.all(axis=0).sum()), table.shape[1]
    if number < FEW:
        low, high = (questions * end - (number - value) for end in wilson(number, questions, level))
        return Interval(value, low, high)
    return Interval(value, value - half, value + half)


def error_overlap(first: ArrayLike, second: ArrayLike, strata: ArrayLike) -> ErrorOverlap:
    """Compare where two lists of right (True) and wrong are wrong; ``strata`` are the subjects."""
    right = np.array([np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)])
    wrong = ~right
    n = wrong.shape[1]
    a, b = int(wrong[0].sum()), int(wrong[1].sum())
    both = int(np.sum(wrong[0] & wrong[1]))
    counts, sizes = stratum_counts(wrong, strata)
    expected = a * b / n
    union = a + b - both
    return ErrorOverlap(
        n=n,
        first_wrong=a,
        second_wrong=b,
        both_wrong=both,
        expected=expected,
        expected_in_strata=float(np.sum(counts[0] * counts[1] / sizes)),
        p=shared_wrong_p(counts[0], counts[1], sizes, both),
        phi=phi(wrong[0], wrong[1]),
        jaccard=both / union if union else float("nan"),
        jaccard_expected=expected / (a + b - expected) if a + b > expected else float("nan"),
        kappa=error_consistency(right[0], right[1]),
    )


def expected_wrong_counts(wrong: ArrayLike, strata: ArrayLike) -> Floats:
    """Return how many questions 0, 1, …, K models would miss if they were independent within each stratum.

    Poisson-binomial in each stratum, summed: K + 1 numbers that add up to the number of questions.
    """
    counts, sizes = stratum_counts(wrong, strata)
    total = np.zeros(len(counts) + 1)
    for rates, size in zip((counts / sizes).T, sizes, strict=True):
        chances = np.ones(1)
        for rate in rates:
            chances = np.convolve(chances, [1 - rate, rate])
        total += size * chances
    return total


def capa(first: ArrayLike, second: ArrayLike, gold: ArrayLike) -> float:
    """Return CAPA, chance-adjusted agreement of option probabilities (arXiv 2502.04313, equation 2).

    ``first`` and ``second`` are questions × options, rows summing to 1, absent options ``nan``; one-hot
    rows give the discrete form from letters alone. ``gold`` is the index of the right option. ``o = mean Σ
    p₁p₂``; ``e = p̄₁p̄₂ + mean(1 / (k - 1)) (1 - p̄₁)(1 - p̄₂)`` with p̄ the mean probability on gold; ``(o
    - e) / (1 - e)``.
    """
    p1, p2 = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    right = np.asarray(gold, dtype=int)
    options = np.sum(~np.isnan(p1), axis=1)
    rows = np.arange(len(right))
    observed = float(np.mean(np.nansum(p1 * p2, axis=1)))
    mean1, mean2 = float(p1[rows, right].mean()), float(p2[rows, right].mean())
    expected = mean1 * mean2 + float(np.mean(1 / (options - 1))) * (1 - mean1) * (1 - mean2)
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


@dataclass(frozen=True)
class SameWrong:
    """Of ``n`` questions that two models answer wrongly, how many get the same wrong answer.

    ``chance`` is the mean of ``1 / (k - 1)``; ``habit`` is what the two models' own letters would give, shuffled among
    questions with the same gold letter; ``p`` is one-sided against ``habit``.
    """

    n: int
    same: int
    chance: float
    habit: float
    p: float

    @property
    def share(self) -> float:
        """The share of the same wrong answer; ``nan`` without a question that both miss."""
        return self.same / self.n if self.n else float("nan")


def same_wrong(first: ArrayLike, second: ArrayLike, gold: ArrayLike, options: ArrayLike) -> SameWrong:
    """Compare the wrong answers of two models; answers are option indices, negative where none could be read.

    Null: within each gold letter, the second model's wrong letters are shuffled over the questions that
    both miss. The number of matches then has mean ``Σ r_l c_l / n`` and Hoeffding's variance (Ann. Math.
    Stat. 22 (1951) 558); p by the normal approximation with continuity correction. Chance: arXiv
    2506.07962.
    """
    a, b, right = (np.asarray(x, dtype=np.int64) for x in (first, second, gold))
    both = (a >= 0) & (b >= 0) & (a != right) & (b != right)
    n = int(both.sum())
    if not n:
        return SameWrong(0, 0, float("nan"), float("nan"), 1.0)
    same = int(np.sum(a[both] == b[both]))
    chance = float(np.mean(1 / (np.asarray(options)[both] - 1)))
    mean = variance = 0.0
    width = int(max(a[both].max(), b[both].max())) + 1
    for letter in np.unique(right[both]):
        here = both & (right == letter)
        rows = np.bincount(a[here], minlength=width)
        columns = np.bincount(b[here], minlength=width)
        mean += float(np.sum(rows * columns)) / here.sum()
        variance += match_variance(rows, columns)
    p = float(ndtr((mean + 0.5 - same) / variance**0.5)) if variance > 0 else 1.0
    return SameWrong(n, same, chance, float(mean / n), p)


def match_variance(rows: Ints, columns: Ints) -> float:
    """Return the variance of the number of matches when one list of letters is shuffled against the other.

    ``rows`` and ``columns`` are the letter counts. Hoeffding's formula with ``a_ij = 1`` where letters
    agree.
    """
    n = int(rows.sum())
    if n < 2:
        return 0.0
    grand = np.sum(rows * columns) / n**2
    agree = np.eye(len(rows))
    centred = agree - columns[:, None] / n - rows[None, :] / n + grand
    return float(np.sum(rows[:, None] * columns[None, :] * centred**2)) / (n - 1)


@dataclass(frozen=True)
class SharedAnswer:
    """How often two of the models give the same wrong answer on ``n`` questions that all of them miss.

    ``share`` is the mean over pairs of models. ``chance`` is what equally likely wrong options would give, ``habit``
    what the models' own letters would give, shuffled among questions with the same gold letter. ``excess`` is the share
    less ``habit`` with its interval (jackknife over questions, Student's t; Efron and Tibshirani 1993, chapter 11),
    ``p`` is one-sided against ``habit``.
    """

    n: int
    share: float
    chance: float
    habit: float
    excess: Interval
    p: float


def shared_answer(
    answers: ArrayLike, gold: ArrayLike, options: ArrayLike, *, draws: int = 2_000, seed: int = 0
) -> SharedAnswer | None:
    """Compare all models' wrong answers (models × questions, option indices, negative where unread).

    Null: within each gold letter, every model's answers are shuffled over the questions (``draws`` times, fewer if the
    table is large). None if there is no pair of readable answers.
    """
    table = np.asarray(answers, dtype=np.int64)
    right, many = np.asarray(gold), np.asarray(options, dtype=float)
    width = max(int(table.max(initial=-1)) + 1, 1)
    chosen = np.stack([table == letter for letter in range(width)], axis=2).astype(np.float64)
    same, read = _agreeing_pairs(chosen.sum(axis=0)), _pairs((table >= 0).sum(axis=0))
    if not read.sum():
        return None
    draws = int(np.clip(100_000_000 // max(chosen.size, 1), 200, draws))
    rng = np.random.default_rng(seed)
    drawn = np.zeros(draws)
    expected, expected_read = np.zeros(len(right) + 1), np.zeros(len(right) + 1)
    for letter in np.unique(right):
        here = np.flatnonzero(right == letter)
        for total, part in ((expected, chosen[:, here]), (expected_read, chosen[:, here].sum(axis=2, keepdims=True))):
            whole, left_out = _crossed(part)
            total += whole
            total[1 + here] += left_out - whole
        for draw in range(draws):
            shuffled = rng.permuted(table[:, here], axis=1)
            drawn[draw] += sum(_pairs((shuffled == option).sum(axis=0)).sum() for option in range(width))
    habit = expected / np.maximum(expected_read, 1e-12)
    share = float(same.sum() / read.sum())
    without = (same.sum() - same) / np.maximum(read.sum() - read, 1e-12) - habit[1:]
    n = len(right)
    gap = share - float(habit[0])
    error = float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2))) if n > 1 else float("nan")
    half = float(stdtrit(n - 1, 0.975)) * error if n > 1 else float("nan")
    return SharedAnswer(
        n=n,
        share=share,
        chance=float(np.mean(1 / (many - 1))),
        habit=float(habit[0]),
        excess=Interval(gap, gap - half, gap + half),
        p=float((1 + np.sum(drawn >= same.sum() - 1e-9)) / (1 + draws)),
    )


def _pairs(count: NDArray[np.generic]) -> Floats:
    """Return the number of pairs among ``count`` models."""
    number = np.asarray(count, dtype=np.float64)
    return number * (number - 1) / 2


def _agreeing_pairs(counts: Floats) -> Floats:
    """Return, for each question, the pairs of models with the same answer (questions × options in)."""
    return np.asarray(_pairs(counts).sum(axis=1))


def _crossed(chosen: Floats) -> tuple[float, Floats]:
    """Return the pairs expected to agree when answers are shuffled, and the same with each question left out.

    ``chosen`` is models × questions × options: ``Σ_l Σ_(a<b) r_al r_bl / n`` with r the counts of option l.
    """
    n = chosen.shape[1]
    counts, by_question = chosen.sum(axis=1), chosen.sum(axis=0)
    total, squares = counts.sum(axis=0), (counts**2).sum(axis=0)
    own = np.einsum("mqk,mk->qk", chosen, counts)
    whole = float((total**2 - squares).sum()) / 2 / n
    if n < 2:
        return whole, np.zeros(n)
    less = (total - by_question) ** 2 - (squares - 2 * own + by_question)
    return whole, np.asarray(less.sum(axis=1) / 2 / (n - 1))


def majority(answers: ArrayLike, order: Sequence[int] | None = None) -> Ints:
    """Return the answer that most models give to each question (models × questions in).

    Ties go to the model first in ``order``. Unread answers (negative) have no vote; -1 if no model has one.
    """
    votes = np.asarray(answers, dtype=np.int64)
    ranked = votes if order is None else votes[list(order)]
    width = max(int(ranked.max(initial=-1)) + 1, 1)
    counts = np.stack([(ranked == option).sum(axis=0) for option in range(width)])
    best = counts.max(axis=0)
    result = np.full(ranked.shape[1], -1, dtype=np.int64)
    for row in ranked[::-1]:
        wins = (row >= 0) & (counts[np.clip(row, 0, None), np.arange(len(row))] == best)
        result[wins] = row[wins]
    return result
