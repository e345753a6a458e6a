"""Which candidate to run: constraints first, then paired comparisons on the same questions. Reads and writes nothing.

Constraints have three outcomes: a candidate meets one, misses it, or it is not known. Only a candidate that is known to
meet all of them can be chosen.

The comparisons follow Hsu's multiple comparisons with the best (Ann. Stat. 12 (1984) 1136; Multiple Comparisons, 1996,
chapter 4). With k candidates, each interval has the level ``1 - 0.05 / (k - 1)``. A candidate is worse than the best if
its interval against *some* other candidate lies below zero, and as good as the best if its interval against *every*
other one lies above minus the margin. Both statements use the pair of the candidate with the truly best one, whichever
that is, so k - 1 intervals have to hold at the same time, not one for each pair.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from llmjobs.choose.candidates import Candidate, Measured
from llmjobs.choose.constraints import LOSE, QUANTITIES, Constraint
from llmjobs.errors import DataError
from llmjobs.report.numbers import points
from llmjobs.statistics.intervals import Interval, accuracy_interval
from llmjobs.statistics.paired import WeightedDifference, questions_needed, simultaneous_level, weighted_difference

MEETS, MISSES, UNKNOWN = "meets", "misses", "not known"
PREFERENCES: Mapping[str, str | None] = {
    "accuracy": None,
    "speed": "decode",
    "size": "size",
    "memory": "memory",
    "energy": "energy",
}
"""What can be preferred, and the quantity behind it."""
ONLY, BEST, AS_GOOD, UNDECIDED, NONE = "only", "best", "as good", "undecided", "none"
"""How sure the choice is: the only one that meets the constraints; better than every other one; as good as the best
within the margin; the best so far, which others may still beat; no candidate meets the constraints."""
NOTABLY_CHEAPER = 0.9
"""A candidate that needs at most this share of what the chosen one needs is named as an alternative."""
MARGIN = 0.01


@dataclass(frozen=True)
class Wish:
    """What is asked for: limits, weights by benchmark, what is preferred, and the margin within which two are equal."""

    constraints: tuple[Constraint, ...] = ()
    benchmarks: Mapping[str, float] = field(default_factory=dict)
    prefer: str = "accuracy"
    margin: float = MARGIN

    @property
    def context(self) -> int | None:
        """The context length that is asked for."""
        return next((int(one.limit) for one in self.constraints if one.key == "context"), None)


@dataclass(frozen=True)
class Check:
    """One constraint on one candidate: the outcome, in words unless it is met, and by what share a limit is missed."""

    constraint: Constraint
    state: str
    reason: str = ""
    value: float | None = None
    excess: float = 0.0


@dataclass(frozen=True)
class Loss:
    """A candidate less the reference of its model, the least quantized form that was measured."""

    reference: Candidate
    result: WeightedDifference
    level: float


@dataclass(frozen=True, eq=False)
class Judged:
    """A candidate with its accuracy on the asked benchmarks and the outcome of every constraint."""

    candidate: Candidate
    score: Interval | None
    by_benchmark: Mapping[str, Interval]
    questions: int
    checks: tuple[Check, ...]
    loss: Loss | None = None
    unknown: str = ""
    """Why its accuracy is not known."""

    @property
    def state(self) -> str:
        """Whether it can be chosen."""
        states = [check.state for check in self.checks]
        if self.candidate.failed or MISSES in states:
            return MISSES
        return UNKNOWN if self.unknown or UNKNOWN in states else MEETS

    @property
    def label(self) -> str:
        """The candidate's short name."""
        return self.candidate.label

    @property
    def reasons(self) -> list[str]:
        """Why it was ruled out or cannot be judged."""
        if self.candidate.failed:
            return [f"did not run: {self.candidate.failed}"]
        wanted = MISSES if self.state == MISSES else UNKNOWN
        found = [check.reason for check in self.checks if check.state == wanted]
        return found + ([self.unknown] if self.unknown and wanted == UNKNOWN else [])

    @property
    def farthest(self) -> float:
        """The largest share by which it misses a limit; infinite if it did not run."""
        if self.candidate.failed:
            return math.inf
        return max((check.excess for check in self.checks if check.state == MISSES), default=0.0)


@dataclass(frozen=True)
class Relaxed:
    """What giving up one constraint would buy: the candidate that would be chosen then, and the limit it needs."""

    constraint: Constraint
    limit: float | None
    chosen: Judged
    difference: WeightedDifference | None
    """The new one less the chosen one; None if nothing was chosen."""


@dataclass(frozen=True)
class Alternative:
    """A candidate that needs less than the chosen one and is not known to be worse.

    ``proven``: it is as good as the best within the margin. ``needed``: how many questions would probably decide it.
    """

    judged: Judged
    proven: bool
    difference: WeightedDifference
    needed: float | None


@dataclass(frozen=True)
class Decision:
    """The answer, and everything it rests on."""

    wish: Wish
    judged: tuple[Judged, ...]
    """All candidates, the most accurate first."""
    winner: Judged | None
    verdict: str
    feasible: tuple[Judged, ...]
    group: tuple[Judged, ...]
    """Candidates that cannot be told apart from the best, the chosen one first."""
    as_good: tuple[Judged, ...]
    """Candidates that are as good as the best within the margin."""
    against: Mapping[str, WeightedDifference]
    """The chosen one less each other candidate that meets the constraints, by label."""
    level: float
    """Level of each of these intervals."""
    needed: float | None
    """How many questions would probably decide; None if it is decided."""
    alternatives: tuple[Alternative, ...] = ()
    relaxed: tuple[Relaxed, ...] = ()

    def with_state(self, state: str) -> list[Judged]:
        """Candidates with one outcome."""
        return [judged for judged in self.judged if judged.state == state]

    @cached_property
    def nearest(self) -> list[Judged]:
        """The candidates that miss the constraints, the nearest first."""
        missed = [judged for judged in self.with_state(MISSES) if not judged.candidate.failed]
        return sorted(missed, key=lambda one: (one.farthest, -_score(one), one.label))


def decide(candidates: Sequence[Candidate], wish: Wish) -> Decision:
    """Judge every candidate by the constraints, and choose among those that are known to meet them."""
    losses = _losses(candidates, wish.benchmarks)
    judged = sorted(
        (_judge(candidate, wish, losses.get(candidate.label)) for candidate in candidates),
        key=lambda one: (-_score(one), one.label),
    )
    feasible = [one for one in judged if one.state == MEETS]
    choice = _choose(feasible, wish)
    if choice is None:
        return Decision(wish, tuple(judged), None, NONE, (), (), (), {}, 0.95, None, (), _relaxed(judged, wish, None))
    return Decision(
        wish=wish,
        judged=tuple(judged),
        winner=choice.winner,
        verdict=choice.verdict,
        feasible=tuple(feasible),
        group=tuple(sorted(choice.group, key=lambda one: one is not choice.winner)),
        as_good=tuple(choice.as_good),
        against={other.label: choice.of(choice.winner, other) for other in feasible if other is not choice.winner},
        level=choice.level,
        needed=choice.needed,
        alternatives=tuple(_alternatives(choice, wish)),
        relaxed=_relaxed(judged, wish, choice.winner),
    )


def compare(
    first: Candidate, second: Candidate, benchmarks: Mapping[str, float], level: float
) -> WeightedDifference | None:
    """Compare two candidates on the questions that were scored for both; None if a benchmark has none."""
    parts = []
    for name, weight in benchmarks.items():
        if name not in first.answers or name not in second.answers:
            return None
        a, b = first.answers[name], second.answers[name]
        both = ~np.isnan(a) & ~np.isnan(b)
        if not both.any():
            return None
        parts.append((weight, a[both] > 0.5, b[both] > 0.5))
    return weighted_difference(parts, level) if parts else None


def _score(judged: Judged) -> float:
    return -1.0 if judged.score is None else judged.score.value


# Each candidate by itself.


def _judge(candidate: Candidate, wish: Wish, loss: Loss | None) -> Judged:
    by_benchmark: dict[str, Interval] = {}
    questions, missing = 0, []
    for name in wish.benchmarks:
        answers = candidate.answers.get(name)
        held = None if answers is None else answers[~np.isnan(answers)]
        if held is None or not len(held):
            missing.append(name)
            continue
        right = int(np.sum(held > 0.5))
        by_benchmark[name] = Interval(right / len(held), *accuracy_interval(right, len(held)))
        questions += len(held)
    unknown = ""
    if missing:
        unknown = f"{' and '.join(missing)} was not measured; run llmjobs eval with this model"
    score = None if missing or not wish.benchmarks else weighted_interval(by_benchmark, wish.benchmarks)
    checks = tuple(_check(candidate, constraint, wish, loss) for constraint in wish.constraints)
    return Judged(candidate, score, by_benchmark, questions, checks, loss, unknown)


def weighted_interval(intervals: Mapping[str, Interval], weights: Mapping[str, float]) -> Interval:
    """Return the weighted mean of accuracies with its interval.

    The interval adds the squared distances of the ends (Zou and Donner, Stat. Med. 27 (2008) 1693).
    """
    total = sum(weights.values())
    shares = {name: weight / total for name, weight in weights.items()}
    value = sum(share * intervals[name].value for name, share in shares.items())
    down = sum((share * (intervals[name].value - intervals[name].low)) ** 2 for name, share in shares.items())
    up = sum((share * (intervals[name].high - intervals[name].value)) ** 2 for name, share in shares.items())
    return Interval(value, value - down**0.5, value + up**0.5)


def _check(candidate: Candidate, constraint: Constraint, wish: Wish, loss: Loss | None) -> Check:
    if constraint.key == LOSE:
        return _check_loss(candidate, constraint, loss)
    found, why = candidate.measured(constraint.key, wish.context)
    if constraint.key == "context" and found is None:
        reached = max((row.context for row in candidate.speeds if row.decode), default=0)
        if reached >= constraint.limit:
            return Check(constraint, MEETS, value=float(reached))
    if found is None:
        return Check(constraint, UNKNOWN, why)
    low, high = found.ends
    allowed = [constraint.allows(end) for end in (low, high)]
    if constraint.key == "memory" and wish.context is not None and all(allowed) and not found.given:
        at = _too_short(found, wish.context)
        if at:
            return Check(constraint, UNKNOWN, at, found.value)
    if all(allowed):
        return Check(constraint, MEETS, value=found.value)
    if not any(allowed):
        return Check(constraint, MISSES, constraint.miss(found.value), found.value, constraint.excess(found.value))
    show = constraint.quantity.show
    spread = (
        f"{constraint.quantity.noun} was {show(low)} to {show(high)} in {found.n} repetitions, on both sides of"
        f" {show(constraint.limit)}; measure it again with more repetitions"
    )
    return Check(constraint, UNKNOWN, spread, found.value)


def _too_short(memory: Measured, context: int) -> str:
    """Why a measured memory says nothing about a context length; empty if it does."""
    if memory.context is not None and memory.context >= context:
        return ""
    known = "an unrecorded context length" if memory.context is None else f"at most {memory.context:,} tokens"
    return (
        f"memory was measured with {known}, not {context:,} tokens; list {context} under context_lengths of the matrix"
    )


def _losses(candidates: Sequence[Candidate], benchmarks: Mapping[str, float]) -> dict[str, Loss]:
    """Compare each candidate with the least quantized one of its model, all intervals together at 95%."""
    pairs = [(one, reference) for one in candidates if (reference := reference_of(one, candidates)) not in (None, one)]
    level = simultaneous_level(len(pairs))
    found = {}
    for one, reference in pairs:
        result = compare(one, reference, benchmarks, level) if reference else None
        if reference and result:
            found[one.label] = Loss(reference, result, level)
    return found


def reference_of(candidate: Candidate, candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the least quantized candidate of the same model with answers, itself possibly; None if there is none."""
    same = [one for one in candidates if one.model == candidate.model and one.bits is not None and one.answers]
    if not same or candidate.bits is None:
        return None
    most = max(round(one.bits or 0) for one in same)
    if round(candidate.bits) == most:
        return candidate
    fits = [one for one in same if round(one.bits or 0) == most]
    return min(
        fits,
        key=lambda one: (
            not one.is_reference, one.engine != candidate.engine, one.device != candidate.device, one.label
        ),
    )  # fmt: skip


def _check_loss(candidate: Candidate, constraint: Constraint, loss: Loss | None) -> Check:
    if loss is None:
        if candidate.bits is None or not candidate.answers:
            return Check(constraint, UNKNOWN, "no less quantized form of the model was measured on the same questions")
        return Check(constraint, MEETS, "it is the least quantized form that was measured", 0.0)
    result, limit = loss.result, constraint.limit
    lost = -result.difference
    words = f"{points(lost)} points ({points(-result.high)} to {points(-result.low)}) against {loss.reference.label}"
    if -result.low <= limit:
        return Check(constraint, MEETS, value=lost)
    if -result.high > limit:
        text = f"loses {words}, more than {points(limit)}"
        return Check(constraint, MISSES, text, lost, lost / limit - 1 if limit else math.inf)
    needed = questions_needed(limit - lost, result.variance, level=loss.level)
    return Check(
        constraint,
        UNKNOWN,
        f"loss: {words} on {result.n:,} questions, which leaves open whether it is more than {points(limit)};"
        f" {more_questions(needed, result.n)}",
        lost,
    )


MOST_QUESTIONS = 1_000_000


def more_questions(needed: float, n: int) -> str:
    """Say how many questions would decide something that ``n`` questions did not."""
    if needed > MOST_QUESTIONS:
        return "more than a million questions would be needed to decide it"
    rounded = _rounded(max(needed, n + 1))
    return f"about {rounded:,} questions would probably decide it ({rounded - n:,} more)"


def _rounded(value: float) -> int:
    """Round up to two digits."""
    step = int(10 ** max(math.floor(math.log10(max(value, 1))) - 1, 0))
    return math.ceil(value / step) * step


# Candidates against each other.


@dataclass(frozen=True)
class _Choice:
    """The comparison of all candidates that meet the constraints."""

    pool: Sequence[Judged]
    winner: Judged
    verdict: str
    group: Sequence[Judged]
    as_good: Sequence[Judged]
    differences: Mapping[tuple[str, str], WeightedDifference]
    level: float
    needed: float | None

    def of(self, first: Judged, second: Judged) -> WeightedDifference:
        """The first less the second."""
        return self.differences[first.label, second.label]


def _choose(pool: Sequence[Judged], wish: Wish) -> _Choice | None:
    """Choose among candidates that meet the constraints; None if there are none."""
    if not pool:
        return None
    level = simultaneous_level(len(pool) - 1)
    differences = _all_pairs(pool, wish, level)

    def each(one: Judged) -> list[WeightedDifference]:
        return [differences[one.label, other.label] for other in pool if other is not one]

    group = [one for one in pool if all(found.high >= 0 for found in each(one))]
    as_good = [one for one in pool if all(found.low > -wish.margin for found in each(one))]
    leader = min(pool, key=lambda one: (-_score(one), *_cost(one, "memory"), one.label))
    key = PREFERENCES[wish.prefer]
    winner = leader
    if key is not None:
        able = [one for one in pool if one in as_good or one is leader]
        winner = min(able, key=lambda one: (*_cost(one, key, wish.context), -_score(one), one.label))
    if len(pool) == 1:
        verdict = ONLY
    elif len(group) == 1 and winner in group:
        verdict = BEST
    else:
        verdict = AS_GOOD if winner in as_good else UNDECIDED
    needed = None
    if verdict == UNDECIDED:
        needed = max(_needed(found, wish.margin, level) for found in each(winner) if found.low <= -wish.margin)
    return _Choice(pool, winner, verdict, group, as_good, differences, level, needed)


def _all_pairs(pool: Sequence[Judged], wish: Wish, level: float) -> dict[tuple[str, str], WeightedDifference]:
    """Compare each with each other one, in both directions."""
    found = {}
    for one in pool:
        for other in pool:
            if one is not other:
                result = compare(one.candidate, other.candidate, wish.benchmarks, level)
                if result is None:
                    raise DataError(f"{one.label} and {other.label}: no question was scored for both")
                found[one.label, other.label] = result
    return found


def _needed(found: WeightedDifference, margin: float, level: float) -> float:
    """How many questions show that the first is better, worse, or as good within the margin, if it stays as observed.

    The smallest of these numbers counts.
    """
    gaps = [abs(found.difference), found.difference + margin]
    return min(questions_needed(gap, found.variance, level=level) for gap in gaps if gap >= 0)


def _cost(judged: Judged, key: str, context: int | None = None) -> tuple[bool, float]:
    """Sort key: less is better, unknown last."""
    found, _ = judged.candidate.measured(key, context)
    if found is None:
        return True, 0.0
    return False, found.value if QUANTITIES[key].at_most else -found.value


def cheaper_by(candidate: Candidate, other: Candidate, key: str, context: int | None = None) -> float | None:
    """Return how much of a quantity ``candidate`` needs, as a share of ``other``; for speeds the inverse.

    None if one of the two was not measured.
    """
    (mine, _), (theirs, _) = candidate.measured(key, context), other.measured(key, context)
    if mine is None or theirs is None or not mine.value or not theirs.value:
        return None
    return mine.value / theirs.value if QUANTITIES[key].at_most else theirs.value / mine.value


def _alternatives(choice: _Choice, wish: Wish) -> list[Alternative]:
    """Candidates of lower cost that are as good as the best, or cannot be told apart from it."""
    found = []
    for one in choice.pool:
        proven = one in choice.as_good
        if one is choice.winner or not (proven or one in choice.group):
            continue
        shares = [
            cheaper_by(one.candidate, choice.winner.candidate, key, wish.context)
            for key in ("memory", "decode", "size")
        ]
        if any(share is not None and share <= NOTABLY_CHEAPER for share in shares):
            open_ = [
                difference
                for other in choice.pool
                if other is not one and (difference := choice.of(one, other)).low <= -wish.margin
            ]
            needed = None if proven else max(_needed(result, wish.margin, choice.level) for result in open_)
            found.append(Alternative(one, proven, choice.of(one, choice.winner), needed))
    return found


def _relaxed(judged: Sequence[Judged], wish: Wish, winner: Judged | None) -> tuple[Relaxed, ...]:
    """For each constraint, the candidate that would be chosen without it, if that is another one."""
    feasible = [one for one in judged if one.state == MEETS]
    found = []
    for constraint in wish.constraints:
        freed = [one for one in judged if _fails_only(one, constraint)]
        choice = _choose([*feasible, *freed], wish)
        if not freed or choice is None or choice.winner not in freed:
            continue
        if winner and wish.prefer == "accuracy" and _score(choice.winner) <= _score(winner):
            continue  # a tie that is broken by memory buys no accuracy
        found.append((constraint, _limit_needed(choice.winner, constraint, wish), choice.winner))
    level = simultaneous_level(len(found))
    return tuple(
        Relaxed(
            constraint,
            value,
            one,
            compare(one.candidate, winner.candidate, wish.benchmarks, level) if winner else None,
        )
        for constraint, value, one in found
    )


def _limit_needed(judged: Judged, constraint: Constraint, wish: Wish) -> float | None:
    """The limit that a candidate would meet: its worst repetition, or the end of the interval of its loss."""
    if constraint.key == LOSE:
        return None if judged.loss is None else -judged.loss.result.low
    found, _ = judged.candidate.measured(constraint.key, wish.context)
    if found is None:
        return None
    return max(found.ends) if constraint.quantity.at_most else min(found.ends)


def _fails_only(judged: Judged, constraint: Constraint) -> bool:
    if judged.candidate.failed or judged.unknown:
        return False
    return [check.constraint for check in judged.checks if check.state != MEETS] == [constraint] and any(
        check.state == MISSES for check in judged.checks
    )
