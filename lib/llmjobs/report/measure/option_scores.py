"""The option scores behind a model's recorded answers: log-likelihoods, plain or normalized by length.

Accuracy on HellaSwag and others takes the option with the largest log-likelihood per character (``acc_norm``).
Confidence and agreement must use the same scores, because the plain ones may favour another option.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llmjobs.report.study import TEXT_CODE, Benchmark, Bools, Floats
from llmjobs.statistics.calibration import option_probabilities

AGREES = 0.995
"""Share of the recorded answers that must have the largest score; the rest is due to ties and rounding."""


@dataclass(frozen=True)
class OptionScores:
    """Probabilities of the options (questions × options, absent ones ``nan``) if ``held``; ``kind`` is their source."""

    probabilities: Floats
    held: Bools
    kind: str


def option_scores(benchmark: Benchmark, row: int) -> OptionScores | None:
    """Return the probabilities whose largest is the recorded answer; None if no known way reproduces the answers."""
    table = benchmark.loglikelihoods[row]
    gold, answer = benchmark.gold_code, benchmark.answer[row]
    if table is None:
        return None
    width = table.shape[1]
    held = ~np.isnan(table[:, :2]).any(axis=1) & (gold >= 0) & (gold < min(width, TEXT_CODE))
    held &= ~np.isnan(benchmark.correct[row]) & (answer >= 0) & (answer < width)
    held[held] &= ~np.isnan(table[held, gold[held]]) & ~np.isnan(table[held, answer[held]])
    if not held.any():
        return None
    for kind, scores in _ways(benchmark, table):
        usable = held & ~np.isnan(scores[:, :2]).any(axis=1)
        if not usable.any():
            continue
        best = np.nanmax(np.where(np.isnan(scores[usable]), -np.inf, scores[usable]), axis=1)
        chosen = scores[np.flatnonzero(usable), answer[usable]]
        if np.mean(chosen >= best - 1e-6 * np.abs(best)) >= AGREES:
            probabilities = np.full(scores.shape, np.nan)
            probabilities[usable] = option_probabilities(scores[usable])
            return OptionScores(probabilities, usable, kind)
    return None


def _ways(benchmark: Benchmark, table: Floats) -> Iterator[tuple[str, Floats]]:
    yield "log-likelihoods", table
    if any(question is None or not question.choices for question in benchmark.questions):
        return
    for kind, length in (("log-likelihoods per character", len), ("log-likelihoods per byte", _bytes)):
        lengths = np.full(table.shape, np.nan)
        for column, question in enumerate(benchmark.questions):
            known = [max(length(choice), 1) for choice in (question.choices if question else ())][: table.shape[1]]
            lengths[column, : len(known)] = known
        yield kind, table / lengths


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
