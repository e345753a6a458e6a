"""How far judges agree with each other and with people, and their biases: order, length, their own answers."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from llmjobs.benchmarks.rows import read_rows
from llmjobs.errors import DataError
from llmjobs.mtbench.fastchat import Compared, Judged, turn_of
from llmjobs.statistics.intervals import clustered_interval, group_sums
from llmjobs.statistics.paired import sign_flip_p

# Agreement: rating by rating, preference by preference, and with people's votes.

Figures = dict[str, Any]
PairKey = tuple[str, int, str, str]
"""Question, turn, two models in sorted order."""
Preferences = Mapping[PairKey, str]
"""The preferred model's name, or ``tie``."""
TIE = "tie"


def rating_agreement(judged: Sequence[Judged]) -> list[Figures]:
    """For every two judges on the same answers: correlation, mean difference, share within one point."""
    by_judge: dict[str, dict[tuple[str, str, int], float]] = {}
    for one in judged:
        if one.rating is not None:
            by_judge.setdefault(one.judge, {})[one.model, one.question_id, one.turn] = one.rating
    rows = []
    for first, second in combinations(by_judge, 2):
        shared = sorted(by_judge[first].keys() & by_judge[second].keys())
        if not shared:
            continue
        a, b = (np.array([by_judge[name][key] for key in shared]) for name in (first, second))
        questions = [question for _, question, _ in shared]
        rows.append(
            {
                "first": first,
                "second": second,
                "n": len(shared),
                "spearman": _spearman(a, b),
                **_with_ends("mean_difference", a - b, questions),
                **_with_ends("within_one", np.abs(a - b) <= 1, questions),
            }
        )
    return rows


def _with_ends(name: str, values: Any, questions: Sequence[str]) -> Figures:
    """Return a mean as ``name``, and its interval (cluster-robust over questions) as ``name_low`` and ``name_high``."""
    value, low, high = (round(float(x), 6) for x in clustered_interval(values, questions))
    ends = (None, None) if np.isnan(low) else (low, high)
    return {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def _spearman(a: Any, b: Any) -> float | None:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return round(float(stats.spearmanr(a, b).statistic), 6)


def preferences_of_ratings(judged: Iterable[Judged]) -> dict[PairKey, str]:
    """Preferences from one judge's ratings, for every two models on the same question and turn."""
    by_place: dict[tuple[str, int], dict[str, float]] = {}
    for one in judged:
        if one.rating is not None:
            by_place.setdefault((one.question_id, one.turn), {})[one.model] = one.rating
    found = {}
    for (question, turn), ratings in by_place.items():
        for a, b in combinations(sorted(ratings), 2):
            better = TIE if ratings[a] == ratings[b] else max((a, b), key=ratings.__getitem__)
            found[question, turn, a, b] = better
    return found


def preferences_of_pairs(compared: Iterable[Compared]) -> dict[PairKey, str]:
    """Preferences from one judge's comparisons that could be read."""
    found = {}
    for one in compared:
        if one.winner is not None:
            a, b = sorted((one.first, one.second))
            winner = {"first": one.first, "second": one.second}.get(one.winner, TIE)
            found[one.question_id, one.turn, a, b] = winner
    return found


def preference_agreement(sources: Mapping[str, Preferences]) -> list[Figures]:
    """Every two sources on the preferences that both have."""
    rows = []
    for first, second in combinations(sources, 2):
        shared = sources[first].keys() & sources[second].keys()
        if shared:
            rows.append({"first": first, "second": second} | _agreement([
                (key[0], sources[first][key], sources[second][key]) for key in sorted(shared)
            ]))  # fmt: skip
    return rows


def votes_agreement(sources: Mapping[str, Preferences], votes: Sequence[tuple[PairKey, str]]) -> list[Figures]:
    """Each source compared with single votes; several people may have voted on one pair."""
    rows = []
    for name, preferences in sources.items():
        both = [(key[0], preferences[key], vote) for key, vote in votes if key in preferences]
        if both:
            rows.append({"judge": name, **_agreement(both)})
    return rows


def _agreement(both: Sequence[tuple[str, str, str]]) -> Figures:
    """Shares of equal preferences; ``both`` has the question and the two preferences."""
    decided = [(question, a, b) for question, a, b in both if TIE not in (a, b)]
    agreed = _with_ends("decided", [a == b for _, a, b in decided], [question for question, _, _ in decided])
    return {
        "n": len(both),
        **_with_ends("all", [a == b for _, a, b in both], [question for question, _, _ in both]),
        "n_decided": len(decided),
        **(agreed if decided else {"decided": None, "decided_low": None, "decided_high": None}),
    }


def read_votes(path: Path) -> list[tuple[PairKey, str]]:
    """People's votes: ``question_id``, ``turn``, ``model_a``, ``model_b``, ``winner`` (one of them, ``tie``).

    Raises:
        DataError: not readable, or a line is not a vote.

    """
    found = []
    for number, row in read_rows(path):
        models = row.get("model_a"), row.get("model_b")
        winner = str(row.get("winner", ""))
        known = winner in ("model_a", "model_b") or winner.startswith("tie")
        if not all(isinstance(m, str) and m for m in models) or "question_id" not in row or not known:
            raise DataError(f"{path}:{number}: not a vote: question_id, model_a, model_b and winner are needed")
        a, b = sorted(map(str, models))
        voted = str(row[winner]) if winner in ("model_a", "model_b") else TIE
        turn = turn_of(f"{path}:{number}", row.get("turn") or 1)
        found.append(((str(row["question_id"]), turn, a, b), voted))
    return found


# Biases of a judge: the order of two answers, their length, and whether they are its own.

Floats = NDArray[np.float64]
Lengths = Mapping[tuple[str, str, int], int]
"""(model, question, turn) → characters of the answer."""
FEWEST = 8
"""With fewer answers, no correlation is computed."""
PERMUTATIONS = 10_000


def position_bias(compared: Sequence[Compared]) -> Figures:
    """How often a verdict changed with the order, and towards which position."""
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

    Agents that were rated on the same turns of a question are exchanged together with all their turns.
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
    """Points by which ``judge`` rates its ``own`` models higher than other judges do; None if it has none.

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
