"""Simulates how often a study that stops when it is decided is wrong: ``python benchmarks/sequential.py``.

Every figure of the simulation is the share of studies without an error at any look: the limits contain the true value
after every block, or no block leads to a wrong conclusion. A study asks the questions of a fixed population in an order
of its own; 10,000 orders per population. It takes about three minutes of one core and writes ``sequential.json`` beside
itself; the same ``--seed`` gives the same file, and ``docs/make_statistics.py`` puts it into the documentation.

``--predictions FILE`` replays recorded answers too: a CSV file with the columns study, run, model, device,
quantization, subject, doc_id, gold and prediction. Without it the replay's figures stay as they are in the file.

Populations have 300 or 2,000 questions in 8 subjects. *Independent*: questions differ in difficulty. *Clustered*: in
addition each model has a strength of its own in each subject and in every ten neighbouring questions.
"""

import argparse
import csv
import itertools
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

from llmjobs.statistics import intervals, sequential
from llmjobs.statistics.sequential import Race, Rule

FILE = Path(__file__).with_suffix(".json")
MODELS, SIZES, SUBJECTS = (2, 3, 6), (300, 2000), 8
BEST, PRECISION, COMPARE, LOSE = Rule("best", 95), Rule("precision", 3), Rule("compare", 5), Rule("lose", 3)
LEAD = 0.02
REPLAYED = (Rule("best", 95), Rule("precision", 3), Rule("compare", 5), Rule("lose", 3))
SCHEDULES: dict[str, tuple[int, float]] = {"32": (32, 1.0), "1.1": (64, 1.1), "1.25": (64, 1.25), "1.5": (64, 1.5)}
Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rng = np.random.Generator
Rates = dict[str, float]


def population(rng: Rng, models: int, size: int, clustered: bool, behind: Sequence[int]) -> Bools:
    """Right and wrong (models x questions); model i has exactly ``behind[i]`` right answers fewer than 60 %."""
    subject = np.arange(size) * SUBJECTS // size
    level = np.linspace(-0.3, 0.8, SUBJECTS)[subject] + rng.normal(0, 1, size)
    own = np.zeros((models, size))
    if clustered:
        own = (
            rng.normal(0, 0.5, (models, SUBJECTS))[:, subject]
            + rng.normal(0, 0.7, (models, size))[:, np.arange(size) // 10 * 10]
        )
    right = rng.random((models, size)) < stats.norm.cdf(level + own)
    for row, missing in zip(right, behind, strict=True):
        change = int(row.sum()) - (round(0.6 * size) - missing)
        places = np.flatnonzero(row if change > 0 else ~row)
        row[rng.choice(places, abs(change), replace=False)] = change < 0
    return right


class Studies:
    """Counts of one population in the blocks of many orders: studies x models (or pairs) x blocks."""

    def __init__(self, right: Bools, orders: Ints, sizes: Sequence[int]) -> None:
        self.right, self.orders, self.sizes = right, orders, np.array(sizes)
        self.population = right.shape[1]
        self.totals = right.sum(axis=1)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._starts = starts
        self.hits = np.stack([self._counts(row) for row in right], axis=1)

    def _counts(self, row: Bools) -> Floats:
        return np.add.reduceat(row[self.orders], self._starts, axis=1, dtype=np.int64).astype(float)

    def alone(self, model: int) -> sequential._Scores:
        hits = self.hits[:, model]
        return sequential._Scores(hits, 0 * hits, self.sizes - hits, paired=False)

    def pair(self, first: int, second: int) -> sequential._Scores:
        """Scores of one pair, from the questions that both have right."""
        both = self._counts(self.right[first] & self.right[second])
        ups, downs = self.hits[:, first] - both, self.hits[:, second] - both
        return sequential._Scores(ups, self.sizes - ups - downs, downs, paired=True)


def covered(
    scores: sequential._Scores, total: int, size: int, distance: float, steps: Sequence[float], error: float
) -> Bools:
    """Studies whose limits contain the true ``total`` (in halves) after every block."""
    other = scores.mirrored()
    wrong = sequential._rejected(scores, total, size, sequential._aimed(scores, distance, steps), error / 2)
    wrong |= sequential._rejected(other, 2 * size - total, size, sequential._aimed(other, distance, steps), error / 2)
    return ~wrong


def pairs_covered(studies: Studies, rule: Rule) -> float:
    """All limits of all pairs together."""
    pairs = list(itertools.combinations(range(len(studies.right)), 2))
    good = np.ones(len(studies.orders), dtype=bool)
    for first, second in pairs:
        total = studies.population + int(studies.totals[first] - studies.totals[second])
        scores = studies.pair(first, second)
        good &= covered(scores, total, studies.population, rule.value / 200, sequential.STEPS, rule.error / len(pairs))
    return float(good.mean())


def losses_right(studies: Studies, rule: Rule) -> float:
    """No model's loss against the first is called the wrong way at any look before all questions are asked."""
    models = len(studies.right)
    good = np.ones(len(studies.orders), dtype=bool)
    least = int(np.ceil(round(-rule.value * studies.population / 100, 6)))
    for model in range(1, models):
        scores = studies.pair(model, 0)
        if studies.totals[model] - studies.totals[0] < least:  # "holds" would be wrong
            side, total = scores, least - 1
        else:
            side, total = scores.mirrored(), -least
        bets = sequential._aimed(side, rule.value / 200, sequential.STEPS)
        error = rule.error / (models - 1) / 2
        good &= ~sequential._rejected(side, studies.population + total, studies.population, bets, error)
    return float(good.mean())


def eliminated(studies: Studies, rule: Rule) -> Ints:
    """Return the block after which each model is out (studies x models), or the number of blocks: :class:`Race`."""
    count, models, blocks = studies.hits.shape
    size = studies.population
    wins = np.zeros((models, models, count, blocks))
    for first, second in itertools.combinations(range(models), 2):
        scores = studies.pair(first, second)
        wins[first, second], wins[second, first] = scores.ones, scores.zeros
    bets = sequential._grid(size)
    funds = np.tile(sequential._log_weights(len(bets)), (count, models, 1))
    out = np.full((count, models), blocks)
    before = np.zeros((count, models))
    asked = 0
    for block in range(blocks):
        alive = out == blocks
        now = before + studies.hits[:, :, block]
        end = asked + int(studies.sizes[block])
        gone = np.zeros_like(alive)
        for model in range(models):
            rivals = alive.copy()
            rivals[:, model] = False
            best = np.where(rivals, before, -1.0).max(axis=1)
            leaders = rivals & (before == best[:, None])
            ups, downs = wins[:, model, :, block].T, wins[model, :, :, block].T
            scores = sequential._Scores(
                ups[..., None], (studies.sizes[block] - ups - downs)[..., None], downs[..., None], paired=True
            )
            mean = 0.5 - (before - before[:, [model]]) / (2 * (size - asked))
            with np.errstate(invalid="ignore", divide="ignore"):  # models that are no rivals
                grown = sequential._growth(scores, mean[..., None], bets)[..., 0]
            grown = np.where(leaders[..., None], grown, -np.inf)
            some = leaders.any(axis=1)
            funds[some, model] += logsumexp(grown[some], axis=1) - np.log(leaders[some].sum(axis=1))[:, None]
            behind = np.where(rivals, now, -1.0).max(axis=1) - now[:, model] > size - end
            rich = (end < size) & (logsumexp(funds[:, model], axis=1) >= -np.log(rule.error))
            gone[:, model] = alive[:, model] & some & (behind | rich)
        everyone = (gone == alive).all(axis=1)
        top = np.where(alive, now, -1.0).argmax(axis=1)
        gone[everyone, top[everyone]] = False
        out[gone] = block
        before, asked = now, end
    return out


def check(studies: Studies, out: Ints, blocks: Sequence[Sequence[int]], study: int) -> None:
    """Compare one study with the class that runs use."""
    names = [str(model) for model in range(len(studies.right))]
    race = Race(BEST, studies.population, names)
    for block in blocks:
        if race.racing:
            race.add({name: studies.right[int(name), list(block)] for name in race.racing})
    ends = np.cumsum(studies.sizes)
    expected = {name: int(ends[block]) for name, block in zip(names, out[study], strict=True) if block < len(ends)}
    assert {name: after for name, (after, _) in race.verdict().out.items()} == expected


def wilson_covered(studies: Studies, model: int) -> float:
    """Ordinary intervals, looked at after every block."""
    asked = np.cumsum(studies.sizes)
    low, high = intervals.wilson_arrays(np.cumsum(studies.hits[:, model], axis=1), asked)
    truth = studies.totals[model] / studies.population
    return float(((low <= truth) & (truth <= high)).all(axis=1).mean())


def rates(seed: int, size: int, clustered: bool, models: int, orders: Ints, ordered: list[list[list[int]]]) -> Rates:
    """Shares of studies without an error, by name, for one kind of population."""
    rng = np.random.default_rng([seed, size, clustered, models])
    sizes = sequential.block_sizes(size, SUBJECTS)
    found: Rates = {}
    lead, margin = round(LEAD * size), round(LOSE.value * size / 100)
    alike = population(rng, models, size, clustered, [0] * models)
    alike[1:] = np.where(rng.random((models - 1, size)) < 0.7, alike[0], alike[1:])
    for name, lost in (("exactly the margin", margin), ("one question more", margin + 1)):
        near = alike.copy()
        for row in near[1:]:
            change = int(alike[0].sum()) - lost - int(row.sum())
            row[rng.choice(np.flatnonzero(~row if change > 0 else row), abs(change), replace=False)] = change > 0
        found[f"lose 3: right, loss of {name}"] = losses_right(Studies(near, orders, sizes), LOSE)
    for name, behind in (("all equal", 0), ("lead of 2 points", lead)):
        right = population(rng, models, size, clustered, [0] + [behind] * (models - 1))
        studies = Studies(right, orders, sizes)
        out = eliminated(studies, BEST)
        for study in range(20):
            check(studies, out, ordered[study], study)
        stays = (out == len(sizes))[:, studies.totals == studies.totals.max()]
        found[f"best 95: a best one leads, {name}"] = float(stays.any(axis=1).mean())
        if not behind:
            found["best 95: none of the equal ones is out (not promised)"] = float(stays.all(axis=1).mean())
        found[f"compare 5: all differences, {name}"] = pairs_covered(studies, COMPARE)
    if models == MODELS[0]:
        total, scores = 2 * int(studies.totals[0]), studies.alone(0)
        good = covered(scores, total, size, PRECISION.value / 100, sequential.PRECISE, PRECISION.error)
        found["precision 3: accuracy"] = float(good.mean())
        good = covered(scores, total, size, size**-0.5, sequential.WIDTHS, BEST.error)
        found["other rules: accuracy"] = float(good.mean())
        found["Wilson's interval after every block (not used)"] = wilson_covered(studies, 0)
    return found


def simulate(seed: int, count: int) -> list[dict[str, Any]]:
    """All rows of the table."""
    columns = [(clustered, models) for clustered in (False, True) for models in MODELS]
    names = {
        (clustered, models): f"{'clustered' if clustered else 'independent'} {models}" for clustered, models in columns
    }
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for size in SIZES:
        subjects = [str(place) for place in np.arange(size) * SUBJECTS // size]
        ordered = [sequential.question_blocks(subjects, seed=seed * 10**6 + study) for study in range(count)]
        orders = np.array([list(itertools.chain.from_iterable(blocks)) for blocks in ordered], dtype=np.int32)
        for column in columns:
            for name, rate in rates(seed, size, *column, orders, ordered).items():
                empty = {"name": f"{name}, {size:,} questions", "studies": count, **dict.fromkeys(names.values())}
                rows.setdefault((name, size), empty)[names[column]] = round(rate, 4)
            print(size, names[column], flush=True)
    return [rows[key] for key in sorted(rows)]


def recorded(path: Path) -> dict[str, tuple[list[str], list[str], Bools]]:
    """Sets of models that answered the same questions: models, subjects of the questions, right and wrong."""
    runs: dict[str, dict[tuple[str, ...], dict[tuple[str, int], bool]]] = defaultdict(lambda: defaultdict(dict))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            run = row["model"], row["device"], row["quantization"], row["run"]
            runs[row["study"]][run][row["subject"], int(row["doc_id"])] = row["gold"] == row["prediction"]
    found = {}
    for study, answered in runs.items():
        asked = max(map(len, answered.values()))
        models: dict[str, dict[tuple[str, int], bool]] = {}
        for (model, device, *_), answers in answered.items():
            if len(answers) == asked and (device == "cuda" or len({run[1] for run in answered}) == 1):
                models.setdefault(model, answers)
        questions = sorted(next(iter(models.values())))
        right = np.array([[answers[key] for key in questions] for answers in models.values()])
        found[study] = list(models), [subject for subject, _ in questions], right
    return found


def sizes_of(name: str, count: int) -> list[int]:
    """Sizes of blocks by one of the schedules that are compared."""
    first, growth = SCHEDULES[name]
    sizes: list[int] = []
    while (left := count - sum(sizes)) > 0:
        size = int(first * growth ** len(sizes))
        sizes.append(size if left >= 1.5 * size else left)
    return sizes


def contradicts(race: Race, right: Bools) -> bool:
    """Whether a conclusion is not that of all questions."""
    verdict, share = race.verdict(), dict(zip(race.models, right.mean(axis=1), strict=True))
    if race.rule.kind == "best":
        return max(share, key=share.__getitem__) not in verdict.leaders
    if race.rule.kind == "precision":
        return any(not one.low - 1e-9 <= share[name] <= one.high + 1e-9 for name, one in verdict.estimates.items())
    margin = race.rule.value / 100 + 1e-9
    for pair in verdict.pairs:
        gap = share[pair.first] - share[pair.second]
        truth = {
            "differs": gap * pair.value > 0,
            "within": abs(gap) <= margin,
            "holds": gap >= -margin,
            "loses": gap < -margin,
        }
        if not truth[pair.outcome]:
            return True
    return False


def replay(sets: Mapping[str, tuple[list[str], list[str], Bools]], orders: int) -> dict[str, list[dict[str, Any]]]:
    """Questions that each rule needs on recorded answers, and ``best`` by schedule of blocks."""
    found: dict[str, list[dict[str, Any]]] = {"replay": [], "blocks": []}
    for study, (models, subjects, right) in sets.items():
        top = models[int(right.sum(axis=1).argmax())]
        ordered = np.sort(right.mean(axis=1))[::-1]
        base = {"set": study, "models": len(models), "questions": len(subjects)}
        base["lead"] = round(float(ordered[0] - ordered[1]), 4)

        def run(rule: Rule, sizes: Sequence[int] | None, *, study: str = study, top: str = top) -> dict[str, Any]:
            models, subjects, right = sets[study]
            references = {name: top for name in models if name != top} if rule.kind == "lose" else {}
            wrong, complete = 0, 0
            asked: list[int] = []
            looks: list[int] = []
            for seed in range(orders):
                race = Race(rule, len(subjects), models, references)
                blocks = iter(sequential.question_blocks(subjects, seed=seed, sizes=sizes))
                looks.append(0)
                while race.racing:
                    block = next(blocks)
                    race.add({name: right[models.index(name), block] for name in race.racing})
                    looks[-1] += 1
                asked.append(race.asked)
                wrong += contradicts(race, right)
                complete += race.asked == len(subjects)
            low, median, high = (int(end) for end in np.percentile(asked, [25, 50, 75]))
            return {
                "rule": f"{rule.kind}: {rule.value:g}", "orders": orders, "median": median, "quartiles": [low, high],
                "share": round(median / len(subjects), 3), "looks": int(np.median(looks)), "wrong": wrong,
                "undecided": complete,
            }  # fmt: skip

        for rule in REPLAYED:
            found["replay"].append({**base, **run(rule, None)})
            print(found["replay"][-1], flush=True)
        for schedule in SCHEDULES:
            for rule in (REPLAYED[0], REPLAYED[3]):
                row = {**base, "schedule": schedule, **run(rule, sizes_of(schedule, len(subjects)))}
                found["blocks"].append(row)
                print(row, flush=True)
    return found


def main() -> None:
    """Simulate, replay if there is something to replay, and write the file."""
    parser = argparse.ArgumentParser(description="Simulated errors of studies that stop when they are decided")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--orders", type=int, default=30, help="orders of each replayed set")
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="recorded answers to replay")
    parser.add_argument("--replay-only", action="store_true", help="leave the simulated figures as they are")
    chosen = parser.parse_args()
    before = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    found = {"seed": chosen.seed, "simulated": before.get("simulated", []), "replay": before.get("replay", [])}
    found["blocks"] = before.get("blocks", [])
    if not chosen.replay_only:
        found["simulated"] = simulate(chosen.seed, chosen.studies)
    if chosen.predictions:
        found |= replay(recorded(chosen.predictions), chosen.orders)
    FILE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
