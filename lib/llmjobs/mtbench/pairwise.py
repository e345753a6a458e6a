"""Comparisons: win rates with ties, and Bradley-Terry ratings with intervals.

A tie counts half a win to each (also a verdict that turned with the order). Ratings are on Elo's scale, their mean
1000: 400 points are odds of ten to one. Source: Bradley and Terry, Biometrika 39 (1952) 324; fitted by Hunter's MM
algorithm, Ann. Stat. 32 (2004) 384. Each compared pair gets half a tie more, which keeps ratings finite where one
agent won every comparison.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmjobs.mtbench.fastchat import Compared

Figures = dict[str, Any]
Floats = NDArray[np.float64]
DRAWS, ROUNDS = 300, 400
PRIOR = 0.25
"""Wins that each side of a compared pair gets beforehand."""
SCALE = 400 / np.log(10)
CENTRE = 1000.0


def win_rates(compared: Sequence[Compared]) -> list[Figures]:
    """Wins, losses, ties and their rate of every model, best first; unread comparisons counted apart."""
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
