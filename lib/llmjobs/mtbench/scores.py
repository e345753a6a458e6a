"""Scores of single answers, and win rates and Bradley-Terry ratings of comparisons."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmjobs.mtbench.fastchat import Compared, Judged
from llmjobs.statistics.intervals import Interval, clustered_interval, group_sums
from llmjobs.statistics.paired import holm, sign_flip_p, simultaneous_level

# Scores of single-answer judgments: means in total, by turn and by category, with intervals over questions.

INTERVAL = "95% cluster-robust over questions, Student's t"
LOWEST, HIGHEST = 1.0, 10.0
Figures = dict[str, Any]


def score_all(judged: Sequence[Judged], categories: Mapping[str, str]) -> list[Figures]:
    """Scores of every judge and model, in order of appearance."""
    keys = list(dict.fromkeys((one.judge, one.model) for one in judged))
    return [score_model([one for one in judged if (one.judge, one.model) == key], categories) for key in keys]


def score_model(judged: Sequence[Judged], categories: Mapping[str, str]) -> Figures:
    """Scores of one model by one judge."""
    return {
        "judge": judged[0].judge,
        "model": judged[0].model,
        **mean_of(judged),
        "by_turn": _by(judged, lambda one: one.turn, "turn"),
        "by_category": _by(judged, lambda one: categories.get(one.question_id, "unknown"), "category"),
    }


def mean_of(judged: Iterable[Judged]) -> Figures:
    """The mean with its interval, and how many ratings could and could not be read; None without any."""
    everything = list(judged)
    read = [one for one in everything if one.rating is not None]
    counts = {"n": len(read), "unread": len(everything) - len(read)}
    if not read:
        return {"score": None, "low": None, "high": None, **counts}
    values = [float(one.rating or 0.0) for one in read]
    value, low, high = clustered_interval(values, [one.question_id for one in read])
    ends = (None, None) if np.isnan(low) else (_r(max(low, LOWEST)), _r(min(high, HIGHEST)))
    return {"score": _r(value), "low": ends[0], "high": ends[1], **counts}


def _by(judged: Sequence[Judged], key: Callable[[Judged], Any], name: str) -> list[Figures]:
    values = dict.fromkeys(sorted((key(one) for one in judged), key=str))
    return [{name: value, **mean_of(one for one in judged if key(one) == value)} for value in values]


def difference(first: Sequence[Judged], second: Sequence[Judged], turn: int) -> Figures | None:
    """Mean rating of ``first`` minus that of ``second`` on the same questions, for ``turn``; None without any."""
    found = _compared([one for one in first if one.turn == turn], [one for one in second if one.turn == turn])
    return {"turn": turn, **found} if found else None


def differences(judged: Sequence[Judged]) -> list[Figures]:
    """Every two agents of every judge on the turns with ratings of both, the one with the higher mean first.

    ``p`` is a sign-flip test over questions, ``p_holm`` adjusted over the judge's pairs; ``low`` and ``high`` hold for
    all pairs of the judge together (Bonferroni).
    """
    rows: list[Figures] = []
    for judge in dict.fromkeys(one.judge for one in judged):
        mine: dict[str, list[Judged]] = {}
        for one in judged:
            if one.judge == judge:
                mine.setdefault(one.model, []).append(one)
        pairs = list(combinations(mine, 2))
        found: list[Figures] = []
        for a, b in pairs:
            gap = _compared(mine[a], mine[b], simultaneous_level(len(pairs)))
            if gap is None:
                continue
            if gap["difference"] < 0:
                a, b, gap = b, a, _compared(mine[b], mine[a], simultaneous_level(len(pairs))) or gap
            found.append({"judge": judge, "first": a, "second": b, **gap})
        adjusted = holm([row["p"] for row in found])
        rows += [{**row, "p_holm": _r(p)} for row, p in zip(found, adjusted, strict=True)]
    return rows


def _compared(first: Sequence[Judged], second: Sequence[Judged], level: float = 0.95) -> Figures | None:
    """Mean difference on the same turns with its interval and p over questions; None without a common turn."""
    a, b = ({(one.question_id, one.turn): one.rating for one in part} for part in (first, second))
    both = [(key[0], x - y) for key, x in a.items() if x is not None and (y := b.get(key)) is not None]
    if not both:
        return None
    questions, gaps = [question for question, _ in both], [gap for _, gap in both]
    value, low, high = (
        clustered_interval(gaps, questions, level) if len(both) > 1 else Interval(gaps[0], float("nan"), float("nan"))
    )
    widest = HIGHEST - LOWEST
    return {
        "n": len(gaps),
        "questions": len(set(questions)),
        "difference": _r(value),
        "low": _r(-widest if np.isnan(low) else max(low, -widest)),
        "high": _r(widest if np.isnan(high) else min(high, widest)),
        "p": round(sign_flip_p(group_sums(gaps, questions)[0]), 9),
    }


def _r(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


# Comparisons: win rates with ties, and Bradley-Terry ratings with intervals.

Floats = NDArray[np.float64]
DRAWS, ROUNDS = 300, 400
PRIOR = 0.25
"""Wins added in advance to each side of a compared pair."""
SCALE = 400 / np.log(10)
CENTRE = 1000.0


def win_rates(compared: Sequence[Compared]) -> list[Figures]:
    """Wins, losses, ties and their rate for every model, best first; unreadable comparisons are counted separately."""
    models = dict.fromkeys(name for one in compared for name in (one.first, one.second))
    rows = []
    for model in models:
        mine = [one for one in compared if model in (one.first, one.second)]
        wins = sum(_winner(one) == model for one in mine)
        ties = sum(one.winner == "tie" for one in mine)
        read = sum(one.winner is not None for one in mine)
        rate = round((wins + ties / 2) / read, 6) if read else None
        counts = {"wins": wins, "losses": read - wins - ties, "ties": ties, "n": read, "unread": len(mine) - read}
        rows.append({"model": model, **counts, "win_rate": rate})
    return sorted(rows, key=lambda row: -(row["win_rate"] if row["win_rate"] is not None else -1.0))


def pair_table(compared: Sequence[Compared]) -> list[Figures]:
    """Wins of each side and ties, for each pair of models."""
    pairs = dict.fromkeys((one.first, one.second) for one in compared)
    return [
        {"first": first, "second": second}
        | {
            name: sum(one.winner == winner for one in compared if (one.first, one.second) == (first, second))
            for name, winner in (("first_wins", "first"), ("second_wins", "second"), ("ties", "tie"), ("unread", None))
        }
        for first, second in pairs
    ]


def _winner(one: Compared) -> str | None:
    return {"first": one.first, "second": one.second}.get(one.winner or "")


def bradley_terry(compared: Sequence[Compared], *, draws: int = DRAWS, seed: int = 0) -> list[Figures]:
    """Ratings with percentile bootstrap intervals over questions, best first; empty without a readable comparison."""
    read = [one for one in compared if one.winner is not None]
    if not read:
        return []
    models = list(dict.fromkeys(name for one in read for name in (one.first, one.second)))
    questions = list(dict.fromkeys(one.question_id for one in read))
    wins = np.zeros((len(questions), len(models), len(models)))
    for one in read:
        question, a, b = questions.index(one.question_id), models.index(one.first), models.index(one.second)
        wins[question, a, b] += {"first": 1.0, "tie": 0.5, "second": 0.0}[str(one.winner)]
        wins[question, b, a] += {"first": 0.0, "tie": 0.5, "second": 1.0}[str(one.winner)]
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(questions), np.full(len(questions), 1 / len(questions)), size=draws)
    everything = fit(wins.sum(axis=0)[None])[0]
    sampled = fit(np.tensordot(weights.astype(float), wins, axes=1))
    low, high = np.quantile(sampled, [0.025, 0.975], axis=0)
    rows = [
        {"model": m, "rating": round(float(everything[i]), 1), "low": round(float(low[i]), 1)}
        | {"high": round(float(high[i]), 1)}
        for i, m in enumerate(models)
    ]
    return sorted(rows, key=lambda row: -float(str(row["rating"])))


def fit(wins: Floats) -> Floats:
    """Ratings from win matrices of shape (batch, models, models): how often the row's model beat the column's."""
    games = wins + wins.transpose(0, 2, 1)
    met = games.sum(axis=0) > 0
    wins = wins + PRIOR * met
    games = wins + wins.transpose(0, 2, 1)
    strength = np.ones(wins.shape[:2])
    for _ in range(ROUNDS):
        total = strength[:, :, None] + strength[:, None, :]
        strength = wins.sum(axis=2) / (games / total).sum(axis=2)
        strength /= np.exp(np.log(strength).mean(axis=1, keepdims=True))
    return np.asarray(CENTRE + SCALE * np.log(strength), dtype=np.float64)
