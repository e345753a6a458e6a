"""What a judge lets itself be swayed by: the order of two answers, their length, and whose they are.

position     over comparisons read in both orders: share that turned with the order, and of those the share that took
             the answer shown first, with a sign-flip test over questions.
length       ratings less their question's mean against the logarithm of the answer's length less its question's mean:
             rank correlation over answers, so that questions that ask for long answers do not count. p by permuting
             the agents' answers within questions, both turns together: the centred values of one question are not
             independent of each other (of two agents, one is the mirror of the other). For comparisons the share won
             by the longer answer, ties left out, with a sign-flip test over questions. A longer answer may also be
             the better one: neither says why it is rated higher.
self         rating of the judge's own answers above all others', less the same by the other judges; None with a reason
             where no other judge rated the same answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from llmjobs.mtbench.fastchat import Compared, Judged
from llmjobs.statistics.intervals import group_sums
from llmjobs.statistics.paired import sign_flip_p

Figures = dict[str, Any]
Floats = NDArray[np.float64]
Lengths = Mapping[tuple[str, str, int], int]
"""(model, question, turn) → characters of the answer."""
FEWEST = 8
"""Answers below which no correlation is told."""
PERMUTATIONS = 10_000


def position_bias(compared: Sequence[Compared]) -> Figures:
    """How often a verdict turned with the order, and to which place."""
    read = [one for one in compared if one.winner is not None]
    turned = [one for one in read if one.orders in (("first", "second"), ("second", "first"))]
    to_first = sum(one.orders == ("first", "second") for one in turned)
    signs = [1.0 if one.orders == ("first", "second") else -1.0 for one in turned]
    return {
        "n": len(read),
        "flipped": sum(bool(one.flipped) for one in read),
        "to_first_place": to_first,
        "to_second_place": len(turned) - to_first,
        "p": _clustered_p(signs, [one.question_id for one in turned]),
    }


def _clustered_p(signs: Sequence[float], questions: Sequence[str]) -> float | None:
    return round(sign_flip_p(group_sums(signs, questions)[0]), 6) if signs else None


def length_bias(
    judged: Sequence[Judged], compared: Sequence[Compared], lengths: Lengths, *, permutations: int = PERMUTATIONS
) -> Figures:
    """Rank correlation of rating and length within questions, and how often the longer answer won."""
    places: dict[tuple[str, int], dict[str, tuple[float, float]]] = {}
    for one in judged:
        length = lengths.get((one.model, one.question_id, one.turn))
        if one.rating is not None and length:
            places.setdefault((one.question_id, one.turn), {})[one.model] = one.rating, float(np.log(length))
    kept = {place: found for place, found in places.items() if len(found) > 1}
    keys = [(*place, model) for place, found in kept.items() for model in found]
    centred = [np.array(list(found.values())) - np.mean(list(found.values()), axis=0) for found in kept.values()]
    table = np.concatenate(centred) if centred else np.zeros((0, 2))
    spreads = len(table) >= FEWEST and bool((np.ptp(table, axis=0) > 1e-9).all())
    rho, p = _within_questions(keys, table, permutations) if spreads else (None, None)
    longer, signs, questions = _longer(compared, lengths)
    return {
        "n": len(table),
        "spearman": rho,
        "p": p,
        "longer_won": longer,
        "n_decided": len(signs),
        "p_pairs": _clustered_p(signs, questions),
    }


def _within_questions(keys: Sequence[tuple[str, int, str]], table: Floats, draws: int) -> tuple[float, float]:
    """Return Spearman's ρ of the centred ratings and lengths, and p by permuting agents within questions.

    Agents that were rated on the same turns of a question are exchanged with all their turns at once.
    """
    ranks = np.column_stack([stats.rankdata(column) for column in table.T])
    ranks -= ranks.mean(axis=0)
    scale = float(np.sqrt(np.prod(np.sum(ranks**2, axis=0))))
    places = {key: at for at, key in enumerate(keys)}
    turns: dict[tuple[str, str], list[int]] = {}
    for question, turn, model in keys:
        turns.setdefault((question, model), []).append(turn)
    blocks: dict[tuple[str, tuple[int, ...]], list[list[int]]] = {}
    for (question, model), present in turns.items():
        block = tuple(sorted(present))
        blocks.setdefault((question, block), []).append([places[question, turn, model] for turn in block])
    rng = np.random.default_rng(0)
    drawn = np.zeros(draws)
    for rows in blocks.values():
        at = np.array(rows)
        order = rng.permuted(np.tile(np.arange(len(at)), (draws, 1)), axis=1)
        drawn += np.einsum("at,dat->d", ranks[at, 0], ranks[at, 1][order])
    observed = float(np.sum(ranks[:, 0] * ranks[:, 1]))
    reached = int(np.sum(np.abs(drawn) >= abs(observed) - 1e-9))
    return round(observed / scale, 6), round((1 + reached) / (1 + draws), 6)


def _longer(compared: Sequence[Compared], lengths: Lengths) -> tuple[int, list[float], list[str]]:
    """How often the longer answer won, and for each decided comparison 1 or -1 with its question."""
    signs, questions = [], []
    for one in compared:
        a, b = (lengths.get((name, one.question_id, one.turn)) for name in (one.first, one.second))
        if one.winner in ("first", "second") and a and b and a != b:
            signs.append(1.0 if (a > b) == (one.winner == "first") else -1.0)
            questions.append(one.question_id)
    return sum(sign > 0 for sign in signs), signs, questions


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
