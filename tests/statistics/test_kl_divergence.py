"""KL divergence against scipy and numpy on known distributions, and against llama-perplexity's own formula."""

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, rel_entr

from llmjobs.statistics.divergence import RANGE_NATS, kl_divergence, store, summarize


def made(seed: int, positions: int, vocabulary: int, sharpness: float, far: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of a model and of a disturbed one."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, sharpness, (positions, vocabulary))
    return log_softmax(logits, -1), log_softmax(logits + rng.normal(0, far, logits.shape), -1)


@pytest.mark.parametrize("sharpness", [0.5, 3.0])
@pytest.mark.parametrize("far", [0.003, 0.1, 1.0])
def test_equals_scipy(sharpness, far):
    own, other = made(0, 40, 3000, sharpness, far)
    found, same = kl_divergence(store(own), other)
    expected = rel_entr(np.exp(own), np.exp(other)).sum(-1)
    assert found == pytest.approx(expected, rel=2e-3, abs=2e-7)
    assert same.tolist() == (own.argmax(-1) == other.argmax(-1)).tolist()


def test_a_distribution_against_itself_is_zero():
    own, _ = made(1, 20, 5000, 4.0, 0.1)
    found, same = kl_divergence(store(own), own)
    assert found.max() < 1e-8 and same.all()


def test_what_is_hardly_likely_is_one_outcome():
    """Tokens more than 16 nats below the top are not kept one by one, and are not lost either."""
    own = log_softmax(np.array([[20.0, 19.0, *[0.0] * 2000]]), -1)
    other = log_softmax(np.array([[20.0, 19.0, *[6.0] * 2000]]), -1)
    stored = store(own)
    assert (stored.steps[0] > 0).sum() == 2 and own[0, 0] - own[0, 2] > RANGE_NATS
    assert stored.heads[0, 2] == pytest.approx(np.exp(own[0, 2:]).sum(), rel=1e-6)
    found, _ = kl_divergence(stored, other)
    p, q = ([*np.exp(row[0, :2]), np.exp(row[0, 2:]).sum()] for row in (own, other))
    assert found[0] == pytest.approx(rel_entr(p, q).sum(), rel=1e-3)
    assert found[0] <= rel_entr(np.exp(own), np.exp(other)).sum() + 1e-9


def test_rounding_is_what_it_says():
    own, _ = made(2, 10, 4000, 5.0, 0.1)
    stored = store(own)
    scale, lowest, _ = (stored.heads[:, [at]].astype(float) for at in range(3))
    kept = stored.steps > 0
    back = lowest + scale * (stored.steps.astype(float) - 1)
    assert np.abs(back - own)[kept].max() <= RANGE_NATS / 65534 / 2 + 1e-5
    assert stored.steps.nbytes == 2 * own.size


def llama_perplexity(own: np.ndarray, other: np.ndarray) -> list[float]:
    """The formula of llama.cpp's tools/perplexity (``log_softmax`` with ``kl_divergence_result``), written anew."""
    found = []
    for base, logits in zip(own, other, strict=True):
        top, low = base.max(), max(base.min(), base.max() - 16)
        scale = (top - low) / 65535
        steps = np.where(base > low, np.rint((base - low) / scale), 0)
        log_p = scale * steps + (low - top - np.log(np.exp(base - top).sum())) + 0.0
        log_q = logits - logsumexp(logits)
        counted = log_p > -16
        found.append(float(np.sum(np.exp(log_p[counted]) * (log_p[counted] - log_q[counted]))))
    return found


def test_equals_the_formula_of_llama_perplexity():
    """Its probabilities do not sum to one exactly after rounding; ours are scaled. That is all that differs."""
    own, other = made(3, 200, 8000, 3.0, 0.3)
    found, _ = kl_divergence(store(own), other)
    theirs = llama_perplexity(own, other)
    assert found == pytest.approx(theirs, abs=1.5e-4)
    assert found.mean() == pytest.approx(np.mean(theirs), rel=1e-3)
    assert np.quantile(found, 0.99) == pytest.approx(np.quantile(theirs, 0.99), rel=1e-3)


def test_summary_by_text():
    rng = np.random.default_rng(4)
    texts = [text for text in range(8) for _ in range(50)]
    level = rng.gamma(2, 0.01, 8)
    kl = np.array([rng.exponential(level[text]) for text in texts])
    nll_reference = rng.exponential(2, 400)
    found = summarize(kl, kl < 0.02, texts, nll_reference + 0.01, nll_reference)
    assert (found.positions, found.texts) == (400, 8)
    assert found.mean.value == pytest.approx(kl.mean()) and found.median.value == pytest.approx(np.median(kl))
    assert found.p99 is not None and found.p99.value == pytest.approx(np.quantile(kl, 0.99))
    assert found.same_top.value == pytest.approx((kl < 0.02).mean())
    assert found.perplexity_ratio is not None
    assert found.perplexity_ratio == pytest.approx([np.exp(0.01)] * 3)
    by_position = 1.96 * kl.std(ddof=1) / 20
    assert found.mean.high - found.mean.value > by_position, "positions of one text hang together"
    assert found.median.low < found.median.value < found.median.high


def test_intervals_cover_what_other_texts_give():
    """The mean over many draws of texts lies in the interval about as often as it says."""
    rng, inside = np.random.default_rng(5), 0
    for _ in range(40):
        level = rng.gamma(2, 0.5, 12)
        kl = np.repeat(level, 20) * rng.exponential(1, 240)
        found = summarize(kl, kl > 0, [text for text in range(12) for _ in range(20)])
        inside += found.mean.low <= 1.0 <= found.mean.high
    assert inside >= 34


def test_few_values_and_one_text():
    found = summarize([0.1, 0.2], [True, False], [0, 0])
    assert found.p99 is None and found.perplexity_ratio is None
    assert np.isnan(found.mean.low) and np.isnan(found.median.low)
