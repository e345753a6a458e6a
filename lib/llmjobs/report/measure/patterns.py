"""Whether a model's mistakes are patterned or random: every test, model by model."""

from dataclasses import dataclass

import numpy as np

from llmjobs.report.study import TEXT_CODE, Benchmark, Bools, Ints
from llmjobs.statistics.calibration import Calibration, calibrate, option_probabilities
from llmjobs.statistics.paired import holm
from llmjobs.statistics.patterns import (
    Pattern,
    above_chance,
    below_chance,
    group_differences,
    length_dependence,
    letter_preference,
    position_dependence,
)

ONE_LETTER = 0.5
"""Share of the read answers that one letter may take before it is an alarm (four options)."""


@dataclass(frozen=True)
class ModelPatterns:
    """One row's tests, None where the data lacks what a test needs; ``p_holm`` are adjusted p-values."""

    row: int
    n: int
    chance: float
    below_p: float
    above_p: float
    subjects: Pattern | None
    letters: Pattern | None
    chosen: Ints
    gold: Ints
    position: Pattern | None
    by_position: tuple[float, ...]
    length: Pattern | None
    calibration: Calibration | None
    p_holm: dict[str, float]

    @property
    def top_letter(self) -> tuple[int, float]:
        """The letter chosen most often, and its share of the answers that could be read."""
        total = int(self.chosen.sum())
        return (int(np.argmax(self.chosen)), float(self.chosen.max() / total)) if total else (-1, 0.0)

    @property
    def below_chance(self) -> bool:
        """Whether accuracy is below blind guessing beyond chance."""
        return self.chance > 0 and self.below_p < 0.01

    @property
    def one_letter(self) -> bool:
        """Whether one letter takes most answers, and clearly more than it is right."""
        letter, share = self.top_letter
        total = int(self.gold.sum())
        return letter >= 0 and total >= 20 and share > max(ONE_LETTER, 1.5 * self.gold[letter] / total)


def measure_patterns(benchmark: Benchmark) -> list[ModelPatterns]:
    """Run the tests for every row."""
    lengths = _lengths(benchmark)
    return [_model(benchmark, row, lengths) for row in range(len(benchmark.rows))]


def _lengths(benchmark: Benchmark) -> Ints | None:
    if any(question is None for question in benchmark.questions):
        return None
    return np.array([len(q.text) + sum(map(len, q.choices)) for q in benchmark.questions if q], dtype=np.int64)


def _model(benchmark: Benchmark, row: int, lengths: Ints | None) -> ModelPatterns:
    scored: Bools = ~np.isnan(benchmark.correct[row])
    correct = benchmark.correct[row][scored] > 0.5
    subjects = benchmark.subject[scored]
    options = benchmark.options[scored]
    lettered = (options > 1) & (benchmark.gold_code[scored] < TEXT_CODE) & (benchmark.gold_code[scored] >= 0)
    gold = benchmark.gold_code[scored][lettered]
    answer = benchmark.answer[row][scored][lettered]
    answer = np.where(answer < TEXT_CODE, answer, -1)
    width = int(options.max()) if lettered.any() else 0
    chance = float(np.mean(np.where(options > 1, 1 / np.maximum(options, 1), 0.0))) if len(options) else 0.0
    n, right = len(correct), int(correct.sum())
    letters, position, chosen, golds = None, None, np.zeros(0, np.int64), np.zeros(0, np.int64)
    if width and (answer >= 0).any():
        chosen, golds, letters = letter_preference(answer, gold, width)
    if width and len(np.unique(gold)) > 1:
        position = position_dependence(correct[lettered], gold)
    several = len(np.unique(subjects)) > 1
    by_subject = group_differences(correct, subjects) if several else None
    length = length_dependence(correct, lengths[scored], subjects) if lengths is not None and n else None
    tests = {"subjects": by_subject, "letters": letters, "position": position, "length": length}
    held = {name: test.p for name, test in tests.items() if test is not None}
    return ModelPatterns(
        row=row,
        n=n,
        chance=chance,
        below_p=below_chance(right, n, chance) if chance else 1.0,
        above_p=above_chance(right, n, chance) if chance else 1.0,
        subjects=by_subject,
        letters=letters,
        chosen=chosen,
        gold=golds,
        position=position,
        by_position=tuple(
            float(correct[lettered][gold == letter].mean()) if (gold == letter).any() else float("nan")
            for letter in range(width)
        ),
        length=length,
        calibration=_calibration(benchmark, row),
        p_holm=dict(zip(held, holm(list(held.values())), strict=True)),
    )


def _calibration(benchmark: Benchmark, row: int) -> Calibration | None:
    table, gold = benchmark.loglikelihoods[row], benchmark.gold_code
    if table is None:
        return None
    held = ~np.isnan(table[:, :2]).any(axis=1) & (gold >= 0) & (gold < table.shape[1])
    held &= ~np.isnan(benchmark.correct[row])
    held[held] &= ~np.isnan(table[held, gold[held]])
    return calibrate(option_probabilities(table[held]), gold[held]) if held.any() else None
