"""Stopping when it is decided: questions in blocks of random order, and rules that may be checked after every block.

**Order.** The questions of a block are drawn from the remaining ones by ordered pivotal sampling (Deville and Tillé,
Biometrika 85 (1998) 89), ordered by subject: a fixed number, every remaining question equally likely, and each subject
has its share up to rounding.

**Capital.** Scores x are between 0 and 1: right or wrong, or (d + 1) / 2 for the difference d of two models on a
question. Null hypothesis: the mean of all N questions is at most m. Before a block, the mean of the remaining
questions is then at most ``m_b = (N m - sum so far) / (N - asked so far)``. A fraction c of the capital is bet, and the
capital is multiplied by ``Π (1 + λ (x_j - m_b))`` over the block, ``λ = c / m_b`` (Waudby-Smith and Ramdas, J. R. Stat.
Soc. B 86 (2024) 1, section on sampling without replacement; there every block is one question).

**Why blocks may be stratified.** The generating polynomial of pivotal sampling is real stable: a step of the sampling
turns a stable polynomial ``A + B u`` into ``A + B (p z + q w)`` or ``A (p z + q w) + B z w``, with p + q = 1, and both
are stable (the strong Rayleigh property; Brändén and Jonasson, Scand. J. Stat. 39 (2012) 830). It is homogeneous of
degree n, so its n-th root is concave where the variables are positive (Gårding, J. Math. Mech. 8 (1959) 957). With
equal probabilities this gives ``E Π y_j ≤ (mean of y over the remaining questions)^n``, at most 1 under the null
hypothesis. So the capital is a supermartingale from block to block. A mean of capitals is one too, with weights from
earlier blocks. It ever reaches ``1/α`` with probability at most α (Ville 1939). Nobody may look within a block.

**Intervals** contain the totals whose capital has never reached ``1/α``. The fractions c do not depend on the total, so
that the capital falls in it, and the end of the interval is found by bisection.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.random import PCG64
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from llmjobs.statistics.intervals import group_sums

Floats = NDArray[np.float64]
Kind = Literal["precision", "compare", "best", "lose"]
KINDS: tuple[Kind, ...] = ("precision", "compare", "best", "lose")
FIRST_BLOCK = 64
"""Questions of the first block, or two for each subject if that is more."""
GROWTH = 1.1
"""Each block is larger by this factor than the one before."""
STEPS = (0.7, 1.5, 3.0)
"""Bets around the one that is best for the distance which a rule asks about."""
WIDTHS = (1.0, 2.0, 4.0)
"""The same around ``1 / √N`` for accuracies that no rule is about."""
PRECISE = (1.0,)
"""The same for the width of an interval, which is known in advance."""


@dataclass(frozen=True)
class Rule:
    """When to stop.

    ``precision``: every accuracy's interval has a half width of at most ``value`` points (percentage points).
    ``compare``: each difference of two models is not 0, or less than ``value`` points. ``best``: one model is left that
    can be the best, with ``value`` percent confidence. ``lose``: each model is known to lose at most ``value`` points
    against its reference, or more. ``level`` is the confidence of the kinds other than ``best``.

    Raises ValueError for values that make no sense.
    """

    kind: Kind
    value: float
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"rule {self.kind!r}: allowed are {', '.join(KINDS)}")
        if self.kind == "best" and not 50 <= self.value < 100:
            raise ValueError(f"best: {self.value:g} must be a confidence in percent, from 50 to below 100")
        if self.kind != "best" and not 0 < self.value < 100:
            raise ValueError(f"{self.kind}: {self.value:g} must be percentage points, above 0 and below 100")
        if not 0.5 <= self.level < 1:
            raise ValueError(f"level: {self.level:g} must be a share, from 0.5 to below 1")

    @property
    def error(self) -> float:
        """Probability of a wrong conclusion that the rule allows."""
        return 1 - (self.value / 100 if self.kind == "best" else self.level)


@dataclass(frozen=True)
class Estimate:
    """Accuracy of one model: share of right answers among ``asked``, and limits for the whole benchmark."""

    right: int
    asked: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Accuracy of ``first`` less that of ``second``; limits hold for all pairs of the rule together.

    ``outcome``: ``differs``, ``within`` (the margin), ``holds``, ``loses`` or ``open``.
    """

    first: str
    second: str
    asked: int
    value: float
    low: float
    high: float
    outcome: str


@dataclass(frozen=True)
class Verdict:
    """State of a race. ``asked`` counts the questions of the longest racing model.

    ``by`` is ``rule``, ``all questions`` (the data are complete; nothing is left to chance) or ``None``. ``leaders`` is
    the group that can still be the best (``best``; the first has the most right answers) or that does not differ from
    the best estimate (``compare``). ``out``: after how many questions a model was out, and against whom. ``losing``
    says ``holds``, ``loses`` or ``open`` for each model with a reference.
    """

    decided: bool
    by: Literal["rule", "all questions"] | None
    asked: int
    population: int
    leaders: tuple[str, ...] = ()
    out: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    pairs: tuple[Difference, ...] = ()
    losing: Mapping[str, str] = field(default_factory=dict)


def block_sizes(population: int, subjects: int = 1) -> list[int]:
    """Return the sizes of the blocks of ``population`` questions from ``subjects`` subjects.

    Looks cost loading of models, waiting for a look costs questions (docs/adr/0221 has the figures). A rest that is
    smaller than half a block joins the last one.
    """
    sizes: list[int] = []
    size, left = float(max(FIRST_BLOCK, 2 * subjects)), population
    while left:
        take = int(size) if left >= 1.5 * int(size) else left
        sizes.append(take)
        left -= take
        size *= GROWTH
    return sizes


def question_blocks(subjects: Sequence[str], *, seed: int, sizes: Sequence[int] | None = None) -> list[list[int]]:
    """Return the places of the questions in ``subjects``, in blocks, in the order of asking.

    The order depends on ``seed`` and ``subjects`` alone. Random numbers are the raw 64-bit numbers r of
    ``numpy.random.PCG64(seed)``, which numpy keeps the same on all platforms and in all versions; a number below k is
    ``r k // 2^64``. First all questions are shuffled (Fisher and Yates, from the last place down) and sorted by
    subject; then each block but the last takes two numbers per question. A block is sorted by subject.

    Equal sampling needs no step of the pivotal method for each question that loses: of the questions up to the one
    that fills a whole unit of probability, one is picked in proportion (Chauvet, Bernoulli 18 (2012) 1320).
    """
    bits = PCG64(seed)

    def below(bound: int) -> int:
        return int(bits.random_raw()) * bound >> 64

    left = list(range(len(subjects)))
    for last in range(len(left) - 1, 0, -1):
        other = below(last + 1)
        left[last], left[other] = left[other], left[last]
    left.sort(key=lambda place: subjects[place])
    blocks: list[list[int]] = []
    for size in block_sizes(len(left), len(set(subjects))) if sizes is None else sizes:
        if size >= len(left):
            break
        taken = _pivotal(len(left), size, below)
        blocks.append([left[i] for i in sorted(taken)])
        left = [place for i, place in enumerate(left) if i not in taken]
    return [*blocks, left] if left else blocks


def _pivotal(count: int, size: int, below: Callable[[int], int]) -> set[int]:
    """Return ``size`` of ``range(count)`` by ordered pivotal sampling; probabilities are in units of ``1 / count``."""
    taken: set[int] = set()
    carried, weight, start = -1, 0, 0  # the question that is still undecided, with its probability
    for _ in range(size):
        whole = (count - 1 - weight) // size  # that many further questions stay below a probability of 1 together
        drawn = below(weight + whole * size)
        winner = carried if drawn < weight else start + (drawn - weight) // size
        border = start + whole
        start, weight = border + 1, weight + (whole + 1) * size - count
        if below(count - weight) < count - size:
            taken.add(winner)
            carried = border
        else:
            taken.add(border)
            carried = winner
    return taken


@dataclass(frozen=True)
class _Scores:
    """Counts of scores 1, ½ and 0 in each block, along the last axis; leading axes are models or pairs."""

    ones: Floats
    halves: Floats
    zeros: Floats
    paired: bool

    def mirrored(self) -> "_Scores":
        """The same for 1 - x."""
        return _Scores(self.zeros, self.halves, self.ones, self.paired)

    @property
    def asked(self) -> Floats:
        """Questions up to the end of each block."""
        return np.asarray(np.cumsum(self.ones + self.halves + self.zeros, axis=-1))

    @property
    def total(self) -> Floats:
        """Sum of the scores up to the end of each block, in halves."""
        return np.asarray(np.cumsum(2 * self.ones + self.halves, axis=-1))


def _before(running: Floats) -> Floats:
    """Shift sums at the ends of blocks to their starts."""
    return np.concatenate([np.zeros_like(running[..., :1]), running[..., :-1]], axis=-1)


def _grid(population: int) -> Floats:
    """Return fractions for an unknown difference, from the smallest that all questions could show to 0.4.

    A share c of the discordant questions shows at an error of 5 % after about ``8 / (c² ψ)`` questions, ψ about 0.4.
    """
    low = min(0.2, 4 / population**0.5)
    count = max(3, 1 + round(float(np.log(0.4 / low) / np.log(2.2))))
    return np.asarray(np.geomspace(low, 0.4, count))[:, None]


def _log_weights(count: int) -> Floats:
    """Return the logs of the shares of capital behind ``count`` fractions: half as much at the ends."""
    shares = np.full(count, 1.0)
    shares[[0, -1]] = 0.5
    return np.asarray(np.log(shares / shares.sum()))


def _aimed(scores: _Scores, distance: float, steps: Sequence[float]) -> Floats:
    """Return fractions that grow fastest if the mean is ``distance`` above the null's, times ``steps``.

    ``λ = distance / variance`` (Kelly's bet for small distances), the variance from earlier blocks with half a question
    of right and of wrong added, and a tie for pairs.
    """
    ties = float(scores.paired)
    ones = _before(np.cumsum(scores.ones, axis=-1)) + 0.5
    halves = _before(np.cumsum(scores.halves, axis=-1)) + ties
    size = _before(scores.asked) + 1 + ties
    mean = (ones + halves / 2) / size
    variance = (ones + halves / 4) / size - mean**2
    best = distance * mean / variance
    return np.asarray(np.clip(best[..., None, :] * np.asarray(steps)[:, None], 0.002, 0.9))


def _growth(scores: _Scores, mean: Floats, fractions: Floats) -> Floats:
    """Return the logarithm of what each block multiplies the capital by: (…, fractions, blocks)."""
    inverse = 1 / np.maximum(mean, 1e-12)[..., None, :]
    grown: Floats = (
        scores.ones[..., None, :] * np.log1p(fractions * (inverse - 1))
        + scores.halves[..., None, :] * np.log1p(fractions * (inverse / 2 - 1))
        + scores.zeros[..., None, :] * np.log1p(-fractions)
    )
    return np.where(mean[..., None, :] > 0, grown, 0.0)


def _log_capital(scores: _Scores, total: Floats, population: int, fractions: Floats) -> Floats:
    """Return the log of the capital after each block, for the null "the sum of all scores is at most ``total`` halves".

    It is infinite once the sum so far is larger: then the null is known to be wrong.
    """
    asked, sums = _before(scores.asked), scores.total
    mean = (total[..., None] - _before(sums)) / (2 * (population - asked))
    logs = np.cumsum(_growth(scores, mean, fractions), axis=-1)
    capital = logsumexp(logs + _log_weights(logs.shape[-2])[:, None], axis=-2)
    return np.where(np.maximum.accumulate(sums > total[..., None], axis=-1), np.inf, capital)


def _rejected(scores: _Scores, total: ArrayLike, population: int, fractions: Floats, error: float) -> NDArray[np.bool_]:
    """Say whether the capital against "at most ``total`` halves" has ever reached ``1 / error``."""
    totals = np.broadcast_to(np.asarray(total, dtype=float), scores.ones.shape[:-1])
    enough = -np.log(error) if error else np.inf
    return np.asarray(_log_capital(scores, totals, population, fractions).max(axis=-1) >= enough)


def _least(scores: _Scores, population: int, fractions: Floats, error: float) -> Floats:
    """Return the smallest sum of all scores, in halves, that is not rejected, and that is possible at all."""
    found = scores.total[..., -1]
    low = found - 1  # rejected: the sum is already larger
    high = found + 2 * (population - scores.asked[..., -1])  # the largest possible
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        out = _rejected(scores, middle, population, fractions, error)
        low, high = np.where(out, middle, low), np.where(out, high, middle)
    return np.asarray(high)


def _limits(scores: _Scores, population: int, bets: Callable[[_Scores], Floats], error: float) -> tuple[Floats, Floats]:
    """Return both limits of the mean of all scores, each at ``error / 2``."""
    other = scores.mirrored()
    low = _least(scores, population, bets(scores), error / 2) / 2
    high = population - _least(other, population, bets(other), error / 2) / 2
    crossed = low > high  # both limits missed, at different looks: has a probability below ``error``
    middle = (low + high) / 2
    return np.where(crossed, middle, low) / population, np.where(crossed, middle, high) / population


class Race:
    """Models that answer the same questions block by block, until ``rule`` is decided.

    A race depends on nothing but what was added, so that adding the blocks again restores it.

    ``population`` is the number of questions of the whole benchmark. ``references`` says for ``lose`` which model each
    model must not lose to; models that are in no such pair answer nothing.

    Raises ValueError for names that occur twice or are unknown, and for ``lose`` without references.
    """

    racing: tuple[str, ...]
    """Models that need the next block; empty when the rule is decided."""

    def __init__(
        self, rule: Rule, population: int, models: Sequence[str], references: Mapping[str, str] | None = None
    ) -> None:
        self.rule, self.population, self.models = rule, population, tuple(models)
        chosen = dict(references or {})
        if population < 1:
            raise ValueError(f"a race needs at least one question, got {population}")
        if not models or len(set(models)) < len(models):
            raise ValueError(f"a race needs models with different names, got {', '.join(models) or 'none'}")
        for one, other in chosen.items():
            if one not in models or other not in models or one == other:
                raise ValueError(f"references: {one} and {other} must be two of {', '.join(models)}")
        if rule.kind == "lose" and not chosen:
            raise ValueError("lose: name the model that each model must not lose to (references)")
        places = {name: place for place, name in enumerate(self.models)}
        self._pairs: list[tuple[int, int]] = []
        if rule.kind == "compare":
            self._pairs = list(itertools.combinations(range(len(models)), 2))
        elif rule.kind == "lose":
            self._pairs = [(places[one], places[other]) for one, other in chosen.items()]
        self._outcomes = ["open"] * len(self._pairs)
        self._out: dict[str, tuple[int, str]] = {}
        self._sizes: list[int] = []
        self._hits = np.zeros((len(models), 0))
        self._wins = np.zeros((len(models), len(models), 0))  # questions that the first has right and the second wrong
        self._blocks = [0] * len(models)  # blocks that a model has answered
        self._limits: dict[tuple[int, ...], tuple[int, float, float]] = {}  # after how many blocks, low, high
        self._grid = _grid(population)
        self._funds = np.tile(_log_weights(len(self._grid)), (len(models), 1))  # "best": logs, against each model
        self.racing = self.models
        self._settle()

    @property
    def asked(self) -> int:
        """Questions that the models still racing have answered."""
        return sum(self._sizes)

    def add(self, right: Mapping[str, ArrayLike]) -> None:
        """Add the answers of all racing models to the questions of the next block, in one order, and check the rule.

        Raises ValueError if the models are not those of :attr:`racing`, and for lists of different or wrong length.
        """
        if set(right) != set(self.racing):
            raise ValueError(f"answers of {', '.join(self.racing) or 'no model'} are due, got {', '.join(right)}")
        rows = {name: np.asarray(answers, dtype=bool) for name, answers in right.items()}
        sizes = {row.size for row in rows.values()}
        left = self.population - self.asked
        if len(sizes) != 1 or not 0 < min(sizes) <= left or any(row.ndim != 1 for row in rows.values()):
            raise ValueError(f"a block needs one list of 1 to {left} answers per model, got lengths {sorted(sizes)}")
        places = [place for place, name in enumerate(self.models) if name in rows]
        answers = np.array([rows[self.models[place]] for place in places], dtype=float)
        hits = np.zeros((len(self.models), 1))
        wins = np.zeros((len(self.models), len(self.models), 1))
        hits[places, 0] = answers.sum(axis=1)
        wins[np.ix_(places, places, [0])] = (answers @ (1 - answers).T)[..., None]
        self._hits, self._wins = np.append(self._hits, hits, axis=1), np.append(self._wins, wins, axis=2)
        self._sizes.append(answers.shape[1])
        for place in places:
            self._blocks[place] += 1
        self._settle()

    def _settle(self) -> None:
        """Find out who races on."""
        if self.rule.kind == "best":
            self._eliminate()
        elif self.rule.kind == "precision":
            found = self._estimates()
            widths = {name: (one.high - one.low) / 2 for name, one in found.items()}
            self.racing = tuple(name for name in self.racing if widths[name] > self.rule.value / 100 + 1e-12)
        else:
            self._compare()
            still = [pair for pair, outcome in zip(self._pairs, self._outcomes, strict=True) if outcome == "open"]
            needed = set(itertools.chain.from_iterable(still))
            self.racing = tuple(name for place, name in enumerate(self.models) if place in needed)
        if self.asked == self.population:
            self.racing = ()

    def _known(self, places: Sequence[tuple[int, ...]], error: float) -> list[tuple[float, float]]:
        """Return the limits of the mean score of models or pairs; they are computed once for each block."""
        blocks = {one: min(self._blocks[place] for place in one) for one in places}
        for count in sorted(set(blocks.values()) - {0}):
            new = [one for one in places if blocks[one] == count != self._limits.get(one, (0, 0.0, 1.0))[0]]
            if new:
                paired = len(new[0]) == 2
                scores = self._paired(new) if paired else self._alone([one[0] for one in new])
                ends = _limits(scores, self.population, self._margin if paired else self._width, error)
                for one, low, high in zip(new, *ends, strict=True):
                    self._limits[one] = (count, float(low), float(high))
        return [self._limits.get(one, (0, 0.0, 1.0))[1:] for one in places]

    def _alone(self, places: Sequence[int]) -> _Scores:
        """Scores of models that have answered the same blocks."""
        hits = self._hits[list(places), : self._blocks[places[0]]]
        return _Scores(hits, 0 * hits, np.array(self._sizes[: hits.shape[1]]) - hits, paired=False)

    def _paired(self, pairs: Sequence[tuple[int, ...]]) -> _Scores:
        """Scores (d + 1) / 2 of pairs that have answered the same blocks."""
        blocks = min(self._blocks[place] for place in pairs[0])
        first, second = np.array(pairs).T
        ups, downs = self._wins[first, second, :blocks], self._wins[second, first, :blocks]
        return _Scores(ups, np.array(self._sizes[:blocks]) - ups - downs, downs, paired=True)

    def _estimates(self) -> dict[str, Estimate]:
        found = {}
        ends = self._known([(place,) for place in range(len(self.models))], self.rule.error)
        for place, (name, limits) in enumerate(zip(self.models, ends, strict=True)):
            right, asked = int(self._hits[place].sum()), sum(self._sizes[: self._blocks[place]])
            found[name] = Estimate(right, asked, right / asked if asked else float("nan"), *limits)
        return found

    def _width(self, scores: _Scores) -> Floats:
        """Bets for an accuracy: for the width that ``precision`` asks for, or any that the population allows."""
        if self.rule.kind == "precision":
            return _aimed(scores, self.rule.value / 100, PRECISE)
        return _aimed(scores, self.population**-0.5, WIDTHS)

    def _margin(self, scores: _Scores) -> Floats:
        """Bets for the margin of ``compare`` and ``lose``: a difference of two points is one of scores (d + 1) / 2."""
        return _aimed(scores, self.rule.value / 200, STEPS)

    def _compare(self) -> None:
        """Settle pairs: their difference against 0 and the margin, both limits of all pairs together."""
        places = [place for place, found in enumerate(self._outcomes) if found == "open"]
        if not places or not self._sizes:
            return
        scores = self._paired([self._pairs[place] for place in places])
        other = scores.mirrored()
        bets, others = self._margin(scores), self._margin(other)
        complete = self.asked == self.population
        error = 0.0 if complete else self.rule.error / len(self._pairs) / 2  # complete data decide by count
        margin = round(self.rule.value * self.population / 100, 6)  # in questions

        def above(total: float) -> NDArray[np.bool_]:
            """Reject that the sum of differences is at most ``total``."""
            return _rejected(scores, np.floor(total) + self.population, self.population, bets, error)

        def below(total: float) -> NDArray[np.bool_]:
            """Reject that it is at least ``total``."""
            return _rejected(other, np.floor(-total) + self.population, self.population, others, error)

        if self.rule.kind == "compare":
            checks = {"differs": above(0) | below(0), "within": above(-margin) & below(margin)}
        else:
            least = np.ceil(-margin)
            checks = {"holds": above(least - 1), "loses": below(least)}
        for row, place in enumerate(places):
            self._outcomes[place] = next((name for name, found in checks.items() if found[row]), "open")
            if self._outcomes[place] == "loses":
                first, second = self._pairs[place]
                self._out[self.models[first]] = (self.asked, self.models[second])

    def _eliminate(self) -> None:
        """Bet against each racing model being the best, on the rivals that led after the block before.

        The best model is at most level with every rival, so that its fund is a supermartingale whichever rivals are
        chosen, and no correction for their number is needed.
        """
        racing = [self.models.index(name) for name in self.racing]
        if self._sizes and len(racing) > 1:
            block = len(self._sizes) - 1
            size, earlier = self._sizes[-1], self.asked - self._sizes[-1]
            before, now = self._hits[:, :block].sum(axis=1), self._hits.sum(axis=1)
            gone = []
            for place in racing:
                rivals = [rival for rival in racing if rival != place]
                leaders = [rival for rival in rivals if before[rival] == max(before[rivals])]
                ups, downs = self._wins[leaders, place, -1:], self._wins[place, leaders, -1:]
                lead = before[leaders] - before[place]
                mean = 0.5 - lead / (2 * (self.population - earlier))
                block_scores = _Scores(ups, size - ups - downs, downs, paired=True)
                grown = _growth(block_scores, mean[:, None], self._grid)[..., 0]  # (leaders, fractions)
                self._funds[place] += logsumexp(grown, axis=0) - np.log(len(leaders))
                capital = float(logsumexp(self._funds[place]))
                first = max(rivals, key=lambda rival: now[rival])
                behind = now[first] - now[place] > self.population - self.asked
                if behind or (self.asked < self.population and capital >= -np.log(self.rule.error)):
                    gone.append((place, first))
            top = max(racing, key=lambda place: now[place])
            gone = [(place, first) for place, first in gone if place != top or len(gone) < len(racing)]
            for place, first in gone:
                self._out[self.models[place]] = (self.asked, self.models[first])
        left = [name for name in self.racing if name not in self._out]
        self._leaders = tuple(sorted(left, key=lambda name: -self._hits[self.models.index(name)].sum()))
        self.racing = () if len(left) < 2 else tuple(left)

    def verdict(self) -> Verdict:
        """Return what is known so far."""
        complete = self.asked == self.population
        decided = not self.racing
        estimates = self._estimates()
        pairs = self._differences()
        leaders: tuple[str, ...] = ()
        if self.rule.kind == "best":
            leaders = self._leaders
        elif self.rule.kind == "compare" and self._sizes:
            best = max(self.models, key=lambda name: estimates[name].value)
            differ = {frozenset((pair.first, pair.second)) for pair in pairs if pair.outcome == "differs"}
            group = [name for name in self.models if frozenset((name, best)) not in differ]
            leaders = tuple(sorted(group, key=lambda name: -estimates[name].value))
        return Verdict(
            decided=decided,
            by=None if not decided else "all questions" if complete else "rule",
            asked=self.asked,
            population=self.population,
            leaders=leaders,
            out=dict(self._out),
            estimates=estimates,
            pairs=pairs,
            losing={pair.first: pair.outcome for pair in pairs} if self.rule.kind == "lose" else {},
        )

    def _differences(self) -> tuple[Difference, ...]:
        found = []
        ends = self._known(self._pairs, self.rule.error / max(len(self._pairs), 1))
        for (first, second), (low, high), outcome in zip(self._pairs, ends, self._outcomes, strict=True):
            blocks = min(self._blocks[first], self._blocks[second])
            asked = sum(self._sizes[:blocks])
            gap = float((self._hits[first, :blocks] - self._hits[second, :blocks]).sum())
            value = gap / asked if asked else float("nan")
            names = self.models[first], self.models[second]
            found.append(Difference(*names, asked, value, 2 * low - 1, 2 * high - 1, outcome))
        return tuple(found)


def macro_accuracy(right: ArrayLike, subjects: ArrayLike, everything: Sequence[str]) -> tuple[float, tuple[str, ...]]:
    """Return the mean of the subjects' accuracies, and the subjects of ``everything`` that no question was asked of.

    Those are left out of the mean; without any question it is ``nan``. Within a subject every question is equally
    likely to be asked, so that each subject's accuracy is unbiased at a given block.
    """
    names = [str(name) for name in np.asarray(subjects)]
    missing = tuple(sorted(set(everything) - set(names)))
    if not names:
        return float("nan"), missing
    sums, sizes = group_sums(right, names)
    return float(np.mean(sums / sizes)), missing


def questions_needed(
    gap: float, discordant: float, population: int, rule: Rule, models: int, *, accuracy: float = 0.5
) -> int | None:
    """Return about how many questions ``rule`` takes, half of the time; ``None`` if only all of them decide.

    The median of 200 simulated studies, in the blocks that a study of one subject has; for ``precision``, the interval
    after the expected answers.

    ``gap`` is the true difference as a share: the best model less the next (``best``), one model less another
    (``compare``), or a model less its reference (``lose``). ``discordant`` is the share of the questions that only one
    of the two has right. ``models`` counts all models, or for ``lose`` those with a reference. ``precision`` uses only
    ``accuracy``; one half takes the most questions.

    Raises ValueError for a gap that the discordant questions cannot make up.
    """
    sizes = np.array(block_sizes(population), dtype=float)
    if rule.kind == "precision":
        return _median(_precision_gained(accuracy, sizes, rule)[None], sizes)
    if abs(gap) > discordant or discordant > 1:
        raise ValueError(f"a gap of {gap:g} needs as many discordant questions, and at most 1; got {discordant:g}")
    scores = _simulated(gap, discordant, population, sizes)
    margin = rule.value * population / 100

    def gained(up: bool, total: float, error: float) -> Floats:
        """Log capital above what rejects a sum of at most ``total``, the most so far after each block."""
        side = scores if up else scores.mirrored()
        bets = _grid(population) if rule.kind == "best" else _aimed(side, rule.value / 200, STEPS)
        totals = np.full(len(side.ones), total + population)
        return np.maximum.accumulate(_log_capital(side, totals, population, bets) + np.log(error), axis=-1)

    if rule.kind == "best":
        return _median(gained(gap >= 0, 0, rule.error), sizes)
    if rule.kind == "lose":
        error = rule.error / max(models, 1) / 2
        least = float(np.ceil(round(-margin, 6)))
        return _median(np.maximum(gained(True, least - 1, error), gained(False, -least, error)), sizes)
    error = rule.error / max(models * (models - 1), 2)
    differs = np.maximum(gained(True, 0, error), gained(False, 0, error))
    within = np.minimum(gained(True, -margin, error), gained(False, -margin, error))
    return _median(np.maximum(differs, within), sizes)


def _precision_gained(accuracy: float, sizes: Floats, rule: Rule) -> Floats:
    """Return by how much the interval's half width is below the one asked for, after each block."""
    population = int(sizes.sum())
    missing = []
    for blocks in range(1, len(sizes) + 1):
        ones = accuracy * sizes[None, :blocks]
        scores = _Scores(ones, 0 * ones, sizes[None, :blocks] - ones, paired=False)
        low, high = _limits(scores, population, lambda side: _aimed(side, rule.value / 100, PRECISE), rule.error)
        missing.append(rule.value / 100 - float(high[0] - low[0]) / 2)
    return np.array(missing)


def _simulated(gap: float, discordant: float, population: int, sizes: Floats) -> _Scores:
    """Return the scores of 200 pairs of models whose questions come in random order."""
    rng = np.random.default_rng(0)
    ones = np.full(200, round(population * (discordant + gap) / 2))
    zeros = np.full(200, round(population * discordant) - ones[0])
    left = np.full(200, population)
    drawn = []
    for size in sizes.astype(int):
        up = rng.hypergeometric(ones, left - ones, size)
        down = rng.hypergeometric(zeros, left - ones - zeros, size - up)
        ones, zeros, left = ones - up, zeros - down, left - size
        drawn.append((up, size - up - down, down))
    ups, ties, downs = np.array(drawn, dtype=float).transpose(1, 2, 0)
    return _Scores(ups, ties, downs, paired=True)


def _median(gained: Floats, sizes: Floats) -> int | None:
    """Return the median number of questions at which ``gained`` reaches 0, by rows; ``None`` for all questions."""
    block = np.where(gained >= 0, np.arange(len(sizes)), len(sizes) - 1).min(axis=1)
    middle = int(np.sort(block)[(len(block) - 1) // 2])
    return int(sizes[: middle + 1].sum()) if middle < len(sizes) - 1 else None
