"""Whether a model's mistakes are patterned or random: every test, model by model."""

from dataclasses import dataclass, replace

import numpy as np

from llmjobs.report.measure.scores import option_scores
from llmjobs.report.study import TEXT_CODE, Benchmark, Bools, Ints
from llmjobs.statistics.calibration import Calibration, calibrate
from llmjobs.statistics.intervals import Interval
from llmjobs.statistics.paired import holm, simultaneous_level
from llmjobs.statistics.patterns import (
    Pattern,
    above_chance,
    below_chance,
    group_differences,
    length_dependence,
    letter_gaps,
    letter_preference,
    letters_alone,
    position_dependence,
)

ONE_LETTER = 0.5
"""Share of the readable answers that one letter may take before it becomes an alarm (four options)."""


@dataclass(frozen=True)
class ModelPatterns:
    """One row's tests, None if the data for a test is missing; ``p_holm`` are adjusted p-values.

    The intervals of a row's tests (``size``, ``gaps``) hold together at 95 %.

    ``above_p`` and ``below_p`` compare accuracy with blind guessing, adjusted by Holm over the models. ``alone`` is the
    accuracy that the model's own letters would have if assigned at random, ``beyond_alone_p`` tests whether it has
    more. ``gaps`` are the differences between how often each letter is chosen and how often it is right.
    ``scores_kind`` names what the probabilities of ``calibration`` were made from.
    """

    row: int
    n: int
    right: int
    lettered_right: float
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
    scores_kind: str
    alone: float
    beyond_alone_p: float
    gaps: tuple[Interval, ...]
    p_holm: dict[str, float]

    @property
    def top_letter(self) -> tuple[int, float]:
        """The letter chosen most often, and its share of the readable answers."""
        total = int(self.chosen.sum())
        return (int(np.argmax(self.chosen)), float(self.chosen.max() / total)) if total else (-1, 0.0)

    @property
    def below_chance(self) -> bool:
        """Whether accuracy is significantly below blind guessing."""
        return self.chance > 0 and self.below_p < 0.01

    @property
    def at_chance(self) -> bool:
        """Whether the model's accuracy cannot be told apart from blind guessing."""
        return self.chance > 0 and self.n > 0 and self.above_p >= 0.05 and not self.below_chance

    @property
    def one_letter(self) -> bool:
        """Whether one letter takes most answers, and clearly more often than it is right."""
        letter, share = self.top_letter
        total = int(self.gold.sum())
        return letter >= 0 and total >= 20 and share > max(ONE_LETTER, 1.5 * self.gold[letter] / total)


def measure_patterns(benchmark: Benchmark) -> list[ModelPatterns]:
    """Run the tests for every row."""
    lengths = _lengths(benchmark)
    found = [_model(benchmark, row, lengths) for row in range(len(benchmark.rows))]
    above, below = holm([model.above_p for model in found]), holm([model.below_p for model in found])
    return [replace(model, above_p=a, below_p=b) for model, a, b in zip(found, above, below, strict=True)]


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
    alone, beyond_p = float("nan"), 1.0
    gaps: tuple[Interval, ...] = ()
    several, lettered_some = len(np.unique(subjects)) > 1, width > 0 and bool((answer >= 0).any())
    placed, sized = width > 0 and len(np.unique(gold)) > 1, lengths is not None and n > 0
    level = simultaneous_level(several + lettered_some + placed + sized)
    if lettered_some:
        chosen, golds, letters = letter_preference(answer, gold, width)
        alone, beyond_p = letters_alone(answer, gold, width)
        gaps = letter_gaps(answer, gold, width, level)
    if placed:
        position = position_dependence(correct[lettered], gold, level=level)
    by_subject = group_differences(correct, subjects, level=level) if several else None
    length = length_dependence(correct, lengths[scored], subjects, level) if lengths is not None and sized else None
    tests = {"subjects": by_subject, "letters": letters, "position": position, "length": length}
    held = {name: test.p for name, test in tests.items() if test is not None}
    calibration, scores_kind = _calibration(benchmark, row)
    return ModelPatterns(
        row=row,
        n=n,
        right=right,
        lettered_right=float(correct[lettered].mean()) if lettered.any() else float("nan"),
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
        calibration=calibration,
        scores_kind=scores_kind,
        alone=alone,
        beyond_alone_p=beyond_p,
        gaps=gaps,
        p_holm=dict(zip(held, holm(list(held.values())), strict=True)),
    )


def _calibration(benchmark: Benchmark, row: int) -> tuple[Calibration | None, str]:
    scores = option_scores(benchmark, row)
    if scores is None:
        return None, ""
    held, gold, answer = scores.held, benchmark.gold_code, benchmark.answer[row]
    return calibrate(scores.probabilities[held], gold[held], chosen=answer[held]), scores.kind
