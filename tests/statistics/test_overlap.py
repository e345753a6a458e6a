"""Error overlap against plain loops, real permutations and other people's functions."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from textbook import cohen_kappa, jaccard_sets

from llmjobs.statistics import overlap

RNG = np.random.default_rng(11)
N = 400
SUBJECT = np.repeat(np.arange(8), N // 8)
HARD = RNG.normal(0, 1, N)
RIGHT = np.array([RNG.random(N) < stats.norm.cdf(skill - HARD) for skill in (0.1, 0.4, 0.8)])


def test_overlap_of_two_by_hand() -> None:
    found = overlap.error_overlap(RIGHT[0], RIGHT[1], SUBJECT)
    wrong = [{i for i in range(N) if not row[i]} for row in RIGHT]
    assert found.both_wrong == len(wrong[0] & wrong[1])
    assert found.expected == pytest.approx(len(wrong[0]) * len(wrong[1]) / N)
    assert found.jaccard == pytest.approx(jaccard_sets(wrong[0], wrong[1]))
    assert found.phi == pytest.approx(np.corrcoef(RIGHT[0], RIGHT[1])[0, 1])
    assert found.kappa == pytest.approx(cohen_kappa(list(RIGHT[0]), list(RIGHT[1])))
    strata = sum(
        len({i for i in wrong[0] if SUBJECT[i] == s}) * len({i for i in wrong[1] if SUBJECT[i] == s}) / (N // 8)
        for s in range(8)
    )
    assert found.expected_in_strata == pytest.approx(strata)
    assert found.p < 0.01


def test_the_drawn_null_is_that_of_real_shuffles() -> None:
    wrong = ~RIGHT
    counts, sizes = overlap.stratum_counts(wrong, SUBJECT)
    drawn = overlap.permuted_all_wrong(counts, sizes, draws=4000, seed=3)
    shuffled = []
    for _ in range(2000):
        rows = [np.concatenate([RNG.permutation(row[s == SUBJECT]) for s in range(8)]) for row in wrong]
        shuffled.append(int(np.sum(rows[0] & rows[1] & rows[2])))
    assert drawn.mean() == pytest.approx(np.mean(shuffled), abs=0.3)
    assert drawn.std() == pytest.approx(np.std(shuffled), rel=0.1)
    assert stats.ks_2samp(drawn, shuffled).pvalue > 0.001


def test_p_is_uniform_without_overlap() -> None:
    rng = np.random.default_rng(12)
    values = [overlap.error_overlap(rng.random(200) < 0.6, rng.random(200) < 0.5, np.zeros(200)).p for _ in range(300)]
    assert np.mean(np.array(values) < 0.05) < 0.1


def test_expected_counts_of_misses_by_enumeration() -> None:
    wrong = ~RIGHT
    expected = np.zeros(4)
    for s in range(8):
        rates = wrong[:, s == SUBJECT].mean(axis=1)
        for missed in itertools.product([0, 1], repeat=3):
            chance = np.prod([r if m else 1 - r for r, m in zip(rates, missed, strict=True)])
            expected[sum(missed)] += chance * (N // 8)
    assert overlap.expected_wrong_counts(wrong, SUBJECT) == pytest.approx(expected)


def test_extremes_have_no_phi_but_no_crash() -> None:
    found = overlap.error_overlap(np.ones(10), np.ones(10), np.zeros(10))
    assert (found.both_wrong, found.p) == (0, 1.0)
    assert np.isnan(found.phi)
    assert np.isnan(found.kappa)
    all_wrong = overlap.error_overlap(np.zeros(10), np.zeros(10), np.zeros(10))
    assert (all_wrong.both_wrong, all_wrong.expected, all_wrong.jaccard, all_wrong.p) == (10, 10, 1.0, 1.0)


def test_capa_by_a_plain_loop_and_its_limits() -> None:
    rng = np.random.default_rng(13)
    p1, p2 = rng.dirichlet(np.ones(4), 60), rng.dirichlet(np.ones(4), 60)
    gold = rng.integers(0, 4, 60)
    o = sum(p1[i][j] * p2[i][j] for i in range(60) for j in range(4)) / 60
    a1, a2 = (sum(p[i][gold[i]] for i in range(60)) / 60 for p in (p1, p2))
    e = a1 * a2 + (1 - a1) * (1 - a2) / 3
    assert overlap.capa(p1, p2, gold) == pytest.approx((o - e) / (1 - e))
    hot = np.eye(4)[rng.integers(0, 4, 60)]
    assert overlap.capa(hot, hot, gold) == pytest.approx(1.0)
    wide = np.hstack([p1, np.full((60, 1), np.nan)])
    assert overlap.capa(wide, np.hstack([p2, np.full((60, 1), np.nan)]), gold) == pytest.approx((o - e) / (1 - e))


def test_same_wrong_by_a_plain_loop() -> None:
    rng = np.random.default_rng(14)
    gold, a, b = rng.integers(0, 4, 500), rng.integers(-1, 4, 500), rng.integers(-1, 4, 500)
    both = [i for i in range(500) if a[i] >= 0 and b[i] >= 0 and a[i] != gold[i] and b[i] != gold[i]]
    found = overlap.same_wrong(a, b, gold, np.full(500, 4))
    assert (found.n, found.same) == (len(both), sum(a[i] == b[i] for i in both))
    assert found.chance == pytest.approx(1 / 3)
    assert found.habit == pytest.approx(1 / 3, abs=0.03)
    assert found.p > 0.001
    copied = overlap.same_wrong(a, a, gold, np.full(500, 4))
    assert copied.share == 1.0
    assert copied.p < 1e-10


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=40), st.integers(0, 10_000))
def test_variance_of_matches_is_that_of_real_shuffles(letters: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = np.array(letters), rng.integers(0, 4, len(letters))
    rows, columns = np.bincount(first, minlength=4), np.bincount(second, minlength=4)
    matches = np.sum(rng.permuted(np.tile(second, (4000, 1)), axis=1) == first, axis=1)
    assert overlap.match_variance(rows, columns) == pytest.approx(matches.var(), rel=0.15, abs=0.02)
    table = stats.random_table(rows, columns).rvs(4000, random_state=seed)
    assert matches.mean() == pytest.approx(np.trace(table, axis1=1, axis2=2).mean(), rel=0.1, abs=0.1)


def test_majority_with_ties_and_unread_answers() -> None:
    answers = [[0, 1, -1, 2], [0, 2, -1, -1], [1, 1, -1, 3]]
    assert list(overlap.majority(answers)) == [0, 1, -1, 2]
    assert list(overlap.majority(answers, order=[2, 1, 0])) == [0, 1, -1, 3]
