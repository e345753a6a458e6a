"""The decision by itself: constraints with three outcomes, comparisons, preferences, what is not known."""

import numpy as np
import pytest

from llmjobs.choose.candidates import Candidate, Measured, SpeedAt
from llmjobs.choose.constraints import Constraint, make_constraint, parse_benchmarks
from llmjobs.choose.decide import AS_GOOD, BEST, NONE, ONLY, UNDECIDED, Wish, decide
from llmjobs.errors import LlmjobsError, ManifestError
from llmjobs.statistics.paired import paired_difference, questions_needed, smallest_difference, weighted_difference

GIB = 2.0**30


def right(n: int, share: float, seed: int = 0) -> np.ndarray:
    """Answers of which exactly this share is right, in random places."""
    answers = np.arange(n) < round(share * n)
    return np.random.default_rng(seed).permutation(answers).astype(float)


def flipped(answers: np.ndarray, lost: int, gained: int) -> np.ndarray:
    """The same answers with some right ones lost and some wrong ones gained."""
    changed = answers.copy()
    changed[np.flatnonzero(answers == 1)[:lost]] = 0
    changed[np.flatnonzero(answers == 0)[:gained]] = 1
    return changed


def candidate(label: str, answers: np.ndarray | None, *, model: str = "", bits: float = 16, **figures: float):
    speeds = ()
    if "decode" in figures:
        speeds = (SpeedAt(256, Measured(figures.pop("decode")), Measured(0.1)),)
    measured = {key: Measured(value) for key, value in figures.items()}
    held = {} if answers is None else {"quiz": answers}
    return Candidate(label, model or label, bits=bits, answers=held, figures=measured, speeds=speeds)


def wish(*constraints: Constraint, **options) -> Wish:
    return Wish(constraints, {"quiz": 1.0}, **options)


BASE = right(4000, 0.6)


def test_a_lead_beyond_the_interval_is_the_best_and_a_smaller_one_is_not():
    # 4,000 questions, b = 400 and c = 160: 6.0 points, error sqrt((560/4000 - 0.0036) / 4000) = 0.58.
    clear = decide([candidate("good", BASE), candidate("bad", flipped(BASE, 400, 160))], wish())
    assert (clear.verdict, clear.winner.label, clear.needed) == (BEST, "good", None)
    # b = 200 and c = 180: 0.5 points, error 0.49, so -0.46 to 1.46: neither better nor as good within half a point.
    open_ = decide([candidate("good", BASE), candidate("bad", flipped(BASE, 200, 180))], wish(margin=0.004))
    assert open_.verdict == UNDECIDED and [one.label for one in open_.group] == ["good", "bad"]
    # (1.96 + 0.842)² · (380/4000 - 0.005²) / (0.005 + 0.004)² = 9,200 questions show it within the margin
    assert open_.needed == pytest.approx(9200, rel=0.02)


def test_as_good_needs_an_interval_within_the_margin_not_the_absence_of_a_difference():
    # b = c = 40 of 4,000: 0.0 points, error 0.22 points: -0.44 to 0.44.
    pair = [candidate("one", BASE, memory=2 * GIB), candidate("two", flipped(BASE, 40, 40), memory=GIB)]
    found = decide(pair, wish(prefer="memory"))
    assert found.verdict == AS_GOOD and found.winner.label == "two"
    # The same shares on 400 questions: -1.5 to 1.5, no difference is seen, and none is excluded.
    few = right(400, 0.6)
    pair = [candidate("one", few, memory=GIB), candidate("two", flipped(few, 4, 4), memory=2 * GIB)]
    found = decide(pair, wish(prefer="memory"))
    assert found.verdict == UNDECIDED and not found.as_good


def test_a_cheaper_one_is_named_with_what_is_known_of_it():
    pair = [candidate("one", BASE, memory=2 * GIB), candidate("two", flipped(BASE, 41, 40), memory=GIB)]
    (cheaper,) = decide(pair, wish()).alternatives
    assert cheaper.judged.label == "two" and cheaper.proven and cheaper.needed is None
    pair[1] = candidate("two", flipped(BASE, 400, 380), memory=GIB)
    (cheaper,) = decide(pair, wish()).alternatives
    assert not cheaper.proven and cheaper.needed > 4000
    pair[1] = candidate("two", flipped(BASE, 400, 160), memory=GIB)
    assert decide(pair, wish()).alternatives == ()


def test_what_was_not_measured_is_neither_met_nor_missed():
    known = candidate("known", flipped(BASE, 400, 160), decode=20.0)
    unknown = candidate("unknown", BASE)
    slow = candidate("slow", BASE, decode=5.0)
    found = decide([known, unknown, slow], wish(Constraint("decode", 10.0)))
    assert (found.verdict, found.winner.label) == (ONLY, "known")
    states = {one.label: one.state for one in found.judged}
    assert states == {"known": "meets", "unknown": "not known", "slow": "misses"}
    assert decide([unknown, slow], wish(Constraint("decode", 10.0))).verdict == NONE


def test_repetitions_on_both_sides_of_a_limit_leave_it_open():
    shaky = Candidate("shaky", "m", answers={"quiz": BASE}, speeds=(SpeedAt(256, Measured(10.2, 9.1, 11.0, 3)),))
    (judged,) = decide([shaky], wish(Constraint("decode", 10.0))).judged
    assert judged.state == "not known" and "9.1 tokens/s to 11.0 tokens/s in 3 repetitions" in judged.reasons[0]


def test_memory_and_speed_count_only_at_the_context_that_is_asked_for():
    short = Candidate(
        "short", "m", answers={"quiz": BASE}, speeds=(SpeedAt(256, Measured(20.0), Measured(0.1)),),
        figures={"memory": Measured(2 * GIB, context=256), "context": Measured(8192.0)},
    )  # fmt: skip
    asked = Constraint("context", 4096.0)
    for limit in (Constraint("memory", 4 * GIB), Constraint("decode", 10.0), Constraint("first_token", 2.0)):
        (judged,) = decide([short], wish(limit, asked)).judged
        assert judged.state == "not known" and "4096 under context_lengths" in judged.reasons[0]
        assert decide([short], wish(limit)).winner is not None
    # more memory than allowed at a short context is too much at a long one
    assert decide([short], wish(Constraint("memory", GIB), asked)).judged[0].state == "misses"


def test_a_loss_is_judged_by_its_interval():
    # b = 40, c = 0 of 4,000: 1.0 point lost, error 0.16.
    full = candidate("bf16", BASE, model="m", memory=2 * GIB)
    slim = candidate("4-bit", flipped(BASE, 40, 0), model="m", bits=4, memory=GIB)
    for limit, state in ((0.02, "meets"), (0.005, "misses"), (0.0105, "not known")):
        found = decide([full, slim], wish(Constraint("lose", limit), Constraint("memory", 1.5 * GIB)))
        one = next(one for one in found.judged if one.label == "4-bit")
        assert one.state == state, one.reasons
    assert "against bf16" in one.reasons[0] and "questions would probably decide it" in one.reasons[0]
    # the reference need not meet the limits itself; another model is no reference
    assert one.loss.reference is full
    alone = decide([slim, candidate("other", BASE)], wish(Constraint("lose", 0.001)))
    assert {judged.state for judged in alone.judged} == {"meets"}


def test_a_benchmark_that_was_not_asked_leaves_a_candidate_unjudged():
    found = decide([candidate("one", BASE), candidate("two", None)], wish())
    assert found.verdict == ONLY and found.judged[1].reasons == [
        "quiz was not measured; run llmjobs eval with this model"
    ]


def test_nothing_fits_the_nearest_comes_first():
    far, near = candidate("far", BASE, memory=4 * GIB), candidate("near", right(4000, 0.3), memory=1.1 * GIB)
    found = decide([far, near], wish(Constraint("memory", GIB)))
    assert found.winner is None and [one.label for one in found.nearest] == ["near", "far"]
    assert found.nearest[0].farthest == pytest.approx(0.1)
    assert found.nearest[0].reasons == ["needs 1.10 GiB of memory, 102 MiB more than 1.00 GiB"]


def test_relaxing_names_the_limit_that_suffices():
    fits, better = candidate("fits", right(4000, 0.3), memory=GIB), candidate("better", BASE, memory=3.301 * GIB)
    (relaxed,) = decide([fits, better], wish(Constraint("memory", 2 * GIB))).relaxed
    assert relaxed.chosen.label == "better" and relaxed.difference.low > 0.2
    assert relaxed.constraint.loosened(relaxed.limit) == "--memory 3.31GiB"  # rounded up: 3.3 would rule it out again
    again = make_constraint("memory", relaxed.constraint.loosened(relaxed.limit).split()[1])
    assert decide([fits, better], wish(again)).winner.label == "better"


def test_one_candidate_only():
    found = decide([candidate("one", BASE)], wish())
    assert (found.verdict, found.against, found.needed) == (ONLY, {}, None)


def test_weights_decide_between_benchmarks():
    one = Candidate("one", "m", answers={"a": right(2000, 0.9, 1), "b": right(2000, 0.3, 2)})
    two = Candidate("two", "n", answers={"a": right(2000, 0.6, 3), "b": right(2000, 0.5, 4)})
    chosen = {
        weights: decide([one, two], Wish((), parse_benchmarks(weights))).winner.label for weights in ("a,b", "a=1,b=3")
    }
    assert chosen == {"a,b": "one", "a=1,b=3": "two"}  # (0.9 + 0.3) / 2 > (0.6 + 0.5) / 2, but 0.45 < 0.525


def test_one_benchmark_gives_the_paired_interval_and_weights_cover():
    a, b = BASE, flipped(BASE, 90, 40)
    plain, weighted = paired_difference(a, b, 0.99), weighted_difference([(3.0, a, b)], 0.99)
    assert (weighted.difference, weighted.low, weighted.high) == pytest.approx(
        (plain.difference, plain.low, plain.high)
    )
    rng, hits = np.random.default_rng(1), 0
    for _ in range(2000):
        parts = []
        for weight, n, up, down in ((2.0, 300, 0.2, 0.1), (1.0, 150, 0.05, 0.15)):
            kind = rng.choice(3, n, p=[up, down, 1 - up - down])
            parts.append((weight, kind == 0, kind == 1))
        found = weighted_difference(parts)
        hits += found.low <= (2 * 0.1 - 0.1) / 3 <= found.high
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_the_number_of_questions_inverts_the_smallest_difference():
    # Connor's formula uses the variance of no difference for the test, so the two agree for small differences.
    for discordant in (0.05, 0.3):
        n = 4000
        gap = smallest_difference(n, discordant)
        assert questions_needed(gap, discordant - gap**2) == pytest.approx(n, rel=0.03)
    assert questions_needed(0.0, 0.1) == float("inf")


def test_the_best_is_wrongly_excluded_in_at_most_five_percent():
    # Five candidates, the first the best by 0.5 points: it must stay in the group in 95% of studies, and a candidate
    # that is 1 point worse must not be called as good within 1 point in more than 5%.
    rng, out, wrong, studies = np.random.default_rng(3), 0, 0, 400
    skills = np.array([0.6, 0.595, 0.595, 0.595, 0.59])
    for _ in range(studies):
        shared = rng.random(1500)
        noise = rng.random((5, 1500)) < 0.15
        answers = np.where(noise, rng.random((5, 1500)) < skills[:, None], shared < skills[:, None])
        found = decide([candidate(str(k), answers[k].astype(float)) for k in range(5)], wish())
        out += all(one.label != "0" for one in found.group)
        wrong += any(one.label == "4" for one in found.as_good)
    assert out / studies <= 0.05 + 0.02 and wrong / studies <= 0.05 + 0.02


@pytest.mark.parametrize(
    ("key", "text", "line"),
    [
        (
            "memory",
            "4",
            "--memory 4: expected a number with one of b, kb, mb, gb, tb, kib, mib, gib, tib, as in --memory",
        ),
        ("memory", "-4GiB", "--memory -4GiB: must be more than 0"),
        ("memory", "fourGiB", "--memory fourGiB: expected a number with one of"),
        ("memory", "nan GiB", "expected a number"),
        ("decode", "-10", "--decode -10: must be more than 0"),
        (
            "decode",
            "fast",
            "--decode fast: expected a number or one with one of tokens/s, tok/s, t/s, as in --decode 10",
        ),
        ("first_token", "2GiB", "--first-token 2GiB: expected a number or one with one of ms, s, sec"),
        ("context", "0", "--context 0: must be more than 0"),
        ("lose", "1%", "--lose 1%: expected a number, as in --lose 1"),
    ],
)
def test_a_limit_that_cannot_be_read(key, text, line):
    with pytest.raises(LlmjobsError, match="^.") as said:
        make_constraint(key, text)
    assert line in str(said.value)


def test_limits_with_units():
    read = {
        ("memory", "4GiB"): 4 * GIB, ("memory", " 500 MB"): 5e8, ("decode", "10"): 10, ("decode", "10 tokens/s"): 10,
        ("first_token", "2"): 2, ("first_token", "500ms"): 0.5, ("context", "8192"): 8192, ("lose", "1.5"): 0.015,
    }  # fmt: skip
    for (key, text), value in read.items():
        assert make_constraint(key, text).limit == pytest.approx(value), (key, text)


@pytest.mark.parametrize("text", ["", "a,,b", "a,a", "a=0", "a=-1", "a=x", "a=nan", "=2"])
def test_weights_that_cannot_be_read(text):
    with pytest.raises(ManifestError, match="--benchmarks"):
        parse_benchmarks(text)
