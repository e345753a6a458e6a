"""Paired differences against statsmodels, by hand, and by simulated coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from llmjobs.statistics import paired


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_equals_statsmodels(b: int, c: int) -> None:
    if b + c:
        other = float(mcnemar([[10, b], [c, 10]], exact=True).pvalue)
        assert paired.mcnemar_exact(b, c) == pytest.approx(min(1.0, other), rel=1e-9)
    else:
        assert paired.mcnemar_exact(b, c) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_equals_statsmodels(values: list[float]) -> None:
    assert paired.holm(values) == pytest.approx(list(multipletests(values, method="holm")[1]), abs=1e-12)


def test_difference_and_its_error_by_hand() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(500) < 0.6, rng.random(500) < 0.5
    found = paired.paired_difference(a, b)
    gaps = a.astype(float) - b.astype(float)
    assert found.difference == pytest.approx(gaps.mean())
    assert found.stderr == pytest.approx(gaps.std(ddof=1) / 500**0.5)
    assert (found.only_first, found.only_second) == (np.sum(gaps == 1), np.sum(gaps == -1))
    variance = a.var(ddof=1) / 500 + b.var(ddof=1) / 500 - 2 * np.cov(a, b)[0, 1] / 500
    assert found.stderr == pytest.approx(variance**0.5)


def test_same_answers_differ_by_nothing() -> None:
    found = paired.paired_difference([1, 0, 1], [1, 0, 1])
    assert (found.difference, found.p) == (0.0, 1.0)
    assert found.low < 0 < found.high
    with pytest.raises(ValueError, match="one length"):
        paired.paired_difference([1], [1, 0])


@pytest.mark.parametrize(
    ("n", "both", "up", "down"),
    [(200, 0.4, 0.2, 0.12), (1204, 0.5, 0.15, 0.09), (2131, 0.55, 0.05, 0.04)],
)
def test_the_paired_interval_covers(n: int, both: float, up: float, down: float) -> None:
    rng = np.random.default_rng(7)
    counts = rng.multinomial(n, [both, up, down, 1 - both - up - down], size=2000)
    hits = 0
    for _, b, c, _ in counts:
        found = paired.difference_from_counts(int(b), int(c), n)
        hits += found.low <= up - down <= found.high
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_the_paired_interval_is_wide_rather_than_narrow_where_almost_nothing_differs() -> None:
    counts = np.random.default_rng(7).multinomial(400, [0.9, 0.02, 0.01, 0.07], size=2000)
    found = [paired.difference_from_counts(int(b), int(c), 400) for _, b, c, _ in counts]
    assert 0.935 <= np.mean([f.low <= 0.01 <= f.high for f in found]) <= 0.98


def test_the_clustered_difference_covers() -> None:
    rng = np.random.default_rng(8)
    labels = np.repeat(np.arange(30), 20)
    hits = 0
    for _ in range(2000):
        lift = rng.normal(0.1, 0.12, 30)[labels]
        base = rng.random(600)
        low, high = paired.clustered_difference(base < 0.5 + lift, base < 0.5, labels)
        hits += low <= 0.1 <= high
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_one_question_is_survived() -> None:
    found = paired.paired_difference([1], [0])
    assert found.difference == 1.0
    assert np.isnan(found.stderr)
    assert stats.norm.ppf(0.975) == pytest.approx(1.96, abs=1e-3)
