"""Patterns and calibration against scipy, statsmodels and plain loops."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import SquareTable

from llmjobs.statistics import calibration, patterns


def test_group_differences_equal_the_chi_square_test() -> None:
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 6, 900)
    right = rng.random(900) < np.array([0.5, 0.5, 0.52, 0.5, 0.45, 0.6])[groups]
    found = patterns.group_differences(right, groups)
    table = [[int(np.sum(right[groups == g])), int(np.sum(~right[groups == g]))] for g in range(6)]
    other = stats.chi2_contingency(table, correction=False)
    assert found.statistic == pytest.approx(other.statistic)
    assert found.p == pytest.approx(other.pvalue, abs=0.02)
    assert found.effect == pytest.approx(stats.contingency.association(np.array(table), method="cramer"))


def test_group_differences_false_alarms() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(10), 30)
    p = [patterns.group_differences(rng.random(300) < 0.4, groups, draws=400, seed=i).p for i in range(400)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.035)
    assert patterns.group_differences(np.ones(300), groups).p == 1.0


def test_letter_preference_equals_statsmodels() -> None:
    rng = np.random.default_rng(3)
    gold = rng.integers(0, 4, 700)
    chosen = np.where(rng.random(700) < 0.6, gold, rng.choice(4, 700, p=[0.1, 0.6, 0.2, 0.1]))
    picks, right, found = patterns.letter_preference(chosen, gold, 4)
    table = np.zeros((4, 4))
    for a, b in zip(chosen, gold, strict=True):
        table[a, b] += 1
    other = SquareTable(table, shift_zeros=False).homogeneity(method="stuart_maxwell")
    assert found.statistic == pytest.approx(other.statistic)
    assert found.p == pytest.approx(other.pvalue)
    assert list(picks) == [int(np.sum(chosen == i)) for i in range(4)]
    assert list(right) == [int(np.sum(gold == i)) for i in range(4)]


def test_one_letter_always_is_an_extreme() -> None:
    gold = np.tile(np.arange(4), 50)
    picks, _, found = patterns.letter_preference(np.full(200, 1), gold, 4)
    assert (picks[1], found.effect) == (200, pytest.approx(0.75))
    assert found.p < 1e-10
    assert patterns.letter_preference(np.full(5, -1), np.zeros(5), 4)[2].p == 1.0


def test_length_dependence_sees_length_within_subjects_only() -> None:
    rng = np.random.default_rng(4)
    strata = np.repeat([0, 1], 400)
    length = rng.integers(10, 100, 800) + strata * 1000
    by_subject = rng.random(800) < np.where(strata, 0.2, 0.8)
    assert patterns.length_dependence(by_subject, length, strata).p > 0.01
    by_length = rng.random(800) < 0.9 - (length % 1000) / 150
    found = patterns.length_dependence(by_length, length, strata)
    assert found.p < 1e-4
    assert found.effect < 0.45


def test_chance_tests_are_binomial() -> None:
    assert patterns.below_chance(20, 152, 0.25) == pytest.approx(stats.binom.cdf(20, 152, 0.25))
    assert patterns.above_chance(60, 152, 0.25) == pytest.approx(stats.binom.sf(59, 152, 0.25))


def test_calibration_by_a_plain_loop() -> None:
    rng = np.random.default_rng(5)
    scores = rng.normal(0, 2, (500, 4))
    probabilities = calibration.option_probabilities(scores)
    assert probabilities == pytest.approx(np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))
    gold = np.array([rng.choice(4, p=row) for row in probabilities])
    found = calibration.calibrate(probabilities, gold)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, g in zip(probabilities, gold, strict=True):
        bins.setdefault(min(int(max(row) * 10), 9), []).append((max(row), int(np.argmax(row)) == g))
    ece = sum(len(b) * abs(np.mean([c for c, _ in b]) - np.mean([r for _, r in b])) for b in bins.values()) / 500
    assert found.ece == pytest.approx(ece)
    assert found.ece < 0.06
    brier = np.mean(
        [sum((p - (j == g)) ** 2 for j, p in enumerate(r)) for r, g in zip(probabilities, gold, strict=True)]
    )
    assert found.brier == pytest.approx(brier)
    pairs = [
        (x > y) + 0.5 * (x == y)
        for x in probabilities.max(axis=1)[probabilities.argmax(axis=1) == gold]
        for y in probabilities.max(axis=1)[probabilities.argmax(axis=1) != gold]
    ]
    assert found.auroc == pytest.approx(np.mean(pairs))


def test_absent_options_stay_absent() -> None:
    found = calibration.option_probabilities([[0.0, 0.0, np.nan]])
    assert found[0, :2] == pytest.approx([0.5, 0.5])
    assert np.isnan(found[0, 2])
