"""Intervals against statsmodels, scipy and simulated coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from llmjobs.statistics import intervals

DRAWS = 2000


@given(st.integers(1, 5000), st.data())
def test_wilson_equals_statsmodels_and_scipy(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = intervals.wilson(k, n)
    assert (low, high) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)
    other = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((other.low, other.high), abs=1e-9)
    assert 0 <= low <= k / n <= high <= 1


def test_wilson_of_nothing_and_of_nonsense() -> None:
    assert all(np.isnan(intervals.wilson(0, 0)))
    with pytest.raises(ValueError, match="between 0 and n"):
        intervals.wilson(3, 2)


def test_wilson_covers() -> None:
    rng = np.random.default_rng(1)
    for n, p in [(152, 0.3), (400, 0.65), (2131, 0.5)]:
        k = rng.binomial(n, p, DRAWS)
        low, high = intervals.wilson_arrays(k, np.full(DRAWS, n))
        assert np.mean((low <= p) & (p <= high)) == pytest.approx(0.95, abs=0.015)


def test_macro_interval_covers() -> None:
    rng = np.random.default_rng(2)
    sizes, chances = np.array([100, 152, 40, 230, 61]), np.array([0.3, 0.55, 0.9, 0.25, 0.7])
    groups = np.repeat(np.arange(5), sizes)
    hits = 0
    for _ in range(DRAWS):
        found = intervals.macro_interval(rng.random(len(groups)) < chances[groups], groups)
        hits += found.low <= chances.mean() <= found.high
    assert hits / DRAWS == pytest.approx(0.95, abs=0.015)


def test_macro_is_the_mean_of_group_means() -> None:
    found = intervals.macro_interval([1, 1, 0, 0, 1], ["a", "a", "b", "b", "b"])
    assert found.value == pytest.approx((1 + 1 / 3) / 2)


def test_clustered_interval_covers_where_wilson_does_not() -> None:
    rng = np.random.default_rng(3)
    clusters, size = 40, 25
    labels = np.repeat(np.arange(clusters), size)
    clustered = plain = 0
    for _ in range(DRAWS):
        chance = rng.beta(6, 6, clusters)
        right = rng.random(clusters * size) < chance[labels]
        found = intervals.clustered_interval(right, labels)
        clustered += found.low <= 0.5 <= found.high
        low, high = intervals.wilson(int(right.sum()), len(right))
        plain += low <= 0.5 <= high
    assert clustered / DRAWS == pytest.approx(0.95, abs=0.015)
    assert plain / DRAWS < 0.85


def test_clustered_interval_equals_the_cluster_robust_regression() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(4)
    labels = rng.integers(0, 12, 300)
    right = (rng.random(300) < 0.6).astype(float)
    fit = sm.OLS(right, np.ones(300)).fit(
        cov_type="cluster", cov_kwds={"groups": labels, "use_correction": False}, use_t=True
    )
    count = len(np.unique(labels))
    error = fit.bse[0] * np.sqrt(count / (count - 1))
    found = intervals.clustered_interval(right, labels)
    assert (found.high - found.low) / 2 == pytest.approx(stats.t.ppf(0.975, count - 1) * error, rel=1e-9)


def test_cluster_bootstrap_agrees_with_the_formula() -> None:
    rng = np.random.default_rng(6)
    labels = np.repeat(np.arange(60), 20)
    right = (rng.random(1200) < rng.beta(4, 4, 60)[labels]).astype(float)
    formula = intervals.clustered_interval(right, labels)
    picks = rng.integers(0, 60, size=(4000, 60))
    low, high = np.quantile(right.reshape(60, 20)[picks].mean(axis=(1, 2)), [0.025, 0.975])
    assert high - low == pytest.approx(formula.high - formula.low, rel=0.08)
