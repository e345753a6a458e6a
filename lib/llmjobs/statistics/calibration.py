"""Is a model right as often as it is confident? Option probabilities against right and wrong."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import softmax

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy: ``ece``, ``brier``, and the bins that hold a question.

    ``auroc`` is the chance that a right answer has higher confidence than a wrong one (0.5: confidence carries no
    information; ``nan`` when all answers are right or all wrong), ``auroc_p`` the Mann-Whitney two-sided p-value.
    """

    n: int
    confidence: float
    accuracy: float
    ece: float
    brier: float
    auroc: float
    auroc_p: float
    bin_confidence: tuple[float, ...]
    bin_accuracy: tuple[float, ...]
    bin_count: tuple[int, ...]


def option_probabilities(loglikelihoods: ArrayLike) -> Floats:
    """Return the softmax over each row's options; absent options are ``nan`` before and after."""
    scores = np.asarray(loglikelihoods, dtype=float)
    filled = softmax(np.where(np.isnan(scores), -np.inf, scores), axis=1)
    return np.where(np.isnan(scores), np.nan, filled)


def calibrate(
    probabilities: ArrayLike, gold: ArrayLike, bins: int = 10, *, chosen: ArrayLike | None = None
) -> Calibration:
    """Compare the chosen option's probability with how often it is right; absent options are ``nan``.

    ``chosen`` are the options that count as answers (default: those with the largest probability).

    Expected calibration error: Guo et al. 2017 (arXiv 1706.04599), equation 3. Brier's score is the multi-class sum of
    squared differences to the one-hot gold, between 0 and 2 (Brier 1950).
    """
    table, right = np.asarray(probabilities, dtype=float), np.asarray(gold, dtype=int)
    rows = np.arange(len(right))
    filled = np.nan_to_num(table)
    picked = filled.argmax(axis=1) if chosen is None else np.asarray(chosen, dtype=int)
    confidence, correct = filled[rows, picked], picked == right
    target = np.zeros_like(filled)
    target[rows, right] = 1.0
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    held = count > 0
    mean_confidence = np.bincount(index, weights=confidence, minlength=bins)[held] / count[held]
    mean_accuracy = np.bincount(index, weights=correct, minlength=bins)[held] / count[held]
    auroc, p = separation(confidence, correct)
    return Calibration(
        n=len(right),
        confidence=float(confidence.mean()),
        accuracy=float(correct.mean()),
        ece=float(np.sum(count[held] * np.abs(mean_confidence - mean_accuracy)) / len(right)),
        brier=float(np.mean(np.sum((filled - target) ** 2, axis=1))),
        auroc=auroc,
        auroc_p=p,
        bin_confidence=tuple(map(float, mean_confidence)),
        bin_accuracy=tuple(map(float, mean_accuracy)),
        bin_count=tuple(map(int, count[held])),
    )


def separation(score: ArrayLike, group: ArrayLike) -> tuple[float, float]:
    """Return the area under the ROC curve of ``score`` for ``group``, and the Mann-Whitney p-value."""
    values, inside = np.asarray(score, dtype=float), np.asarray(group, dtype=bool)
    if inside.all() or not inside.any():
        return float("nan"), 1.0
    test = stats.mannwhitneyu(values[inside], values[~inside], method="asymptotic")
    p = float(test.pvalue)
    return float(test.statistic) / (int(inside.sum()) * int((~inside).sum())), 1.0 if np.isnan(p) else p
