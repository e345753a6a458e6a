"""What a judge lets itself be swayed by: the order of two answers, their length, and whose they are.

position     over comparisons read in both orders: share that turned with the order, and of those the share that took
             the answer shown first, with an exact binomial test against one half.
length       ratings less their question's mean against the logarithm of the answer's length less its question's mean:
             rank correlation over answers, so that questions that ask for long answers do not count. For comparisons
             the share won by the longer answer, ties left out, with a binomial test.
self         rating of the judge's own answers above all others', less the same by the other judges; None with a reason
             where no other judge rated the same answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from llmjobs.mtbench.fastchat import Compared, Judged

Figures = dict[str, Any]
Lengths = Mapping[tuple[str, str, int], int]
"""(model, question, turn) → characters of the answer."""
FEWEST = 8
"""Answers below which no correlation is told."""


def position_bias(compared: Sequence[Compared]) -> Figures:
    """How often a verdict turned with the order, and to which place."""
    read = [one for one in compared if one.winner is not None]
    to_first = sum(one.orders == ("first", "second") for one in read)
    to_second = sum(one.orders == ("second", "first") for one in read)
    both = to_first + to_second
    return {
        "n": len(read),
        "flipped": sum(bool(one.flipped) for one in read),
        "to_first_place": to_first,
        "to_second_place": to_second,
        "p": round(float(stats.binomtest(to_first, both).pvalue), 6) if both else None,
    }


def length_bias(judged: Sequence[Judged], compared: Sequence[Compared], lengths: Lengths) -> Figures:
    """Rank correlation of rating and length within questions, and how often the longer answer won."""
    places: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for one in judged:
        length = lengths.get((one.model, one.question_id, one.turn))
        if one.rating is not None and length:
            places.setdefault((one.question_id, one.turn), []).append((one.rating, float(np.log(length))))
    kept = [np.array(rows) - np.mean(rows, axis=0) for rows in places.values() if len(rows) > 1]
    centred = np.concatenate(kept) if kept else np.zeros((0, 2))
    spreads = len(centred) >= FEWEST and bool((np.ptp(centred, axis=0) > 1e-9).all())
    found = stats.spearmanr(centred[:, 0], centred[:, 1]) if spreads else None
    longer, decided = _longer(compared, lengths)
    return {
        "n": len(centred),
        "spearman": round(float(found.statistic), 6) if found else None,
        "p": round(float(found.pvalue), 6) if found else None,
        "longer_won": longer,
        "n_decided": decided,
        "p_pairs": round(float(stats.binomtest(longer, decided).pvalue), 6) if decided else None,
    }


def _longer(compared: Sequence[Compared], lengths: Lengths) -> tuple[int, int]:
    won = decided = 0
    for one in compared:
        a, b = (lengths.get((name, one.question_id, one.turn)) for name in (one.first, one.second))
        if one.winner in ("first", "second") and a and b and a != b:
            decided += 1
            won += (a > b) == (one.winner == "first")
    return won, decided


def self_preference(judge: str, own: Sequence[str], judged: Sequence[Judged]) -> Figures | None:
    """Points by which ``judge`` rates its ``own`` models higher than other judges do; None where it has none.

    ``own`` are the names of the agents that are the judge's own model.
    """
    mine, others = _means(judged, judge, own, same=True), _means(judged, judge, own, same=False)
    if not own or mine is None:
        return None
    gap = round(mine[0] - mine[1], 6)
    if others is None:
        return {"gap": gap, "preference": None, "reason": "no other judge rated the same agents"}
    return {"gap": gap, "preference": round(gap - (others[0] - others[1]), 6), "reason": None}


def _means(judged: Sequence[Judged], judge: str, own: Sequence[str], *, same: bool) -> tuple[float, float] | None:
    """Mean rating of the judge's own agents and of the others, by the judge itself or by all the other judges."""
    read = [one for one in judged if one.rating is not None and (one.judge == judge) == same]
    parts = [[float(one.rating or 0) for one in read if (one.model in own) == side] for side in (True, False)]
    return (float(np.mean(parts[0])), float(np.mean(parts[1]))) if all(parts) else None
