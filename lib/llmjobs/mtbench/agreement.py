"""How far judges agree: rating by rating, preference by preference, and with people's votes.

Preferences: for two models on one question and turn, the one with the higher rating (or the winner of a comparison).
``all`` counts ties as verdicts of their own, ``decided`` only where both sides decided. Source: Zheng et al., arXiv
2306.05685, section 4.2, setups S1 and S2.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from llmjobs.benchmarks.row_files import read_rows
from llmjobs.errors import DataError
from llmjobs.mtbench.fastchat import Compared, Judged, turn_of
from llmjobs.statistics.intervals import clustered_interval

Figures = dict[str, Any]
PairKey = tuple[str, int, str, str]
"""Question, turn, two models in sorted order."""
Preferences = Mapping[PairKey, str]
"""The preferred model's name, or ``tie``."""
TIE = "tie"


def rating_agreement(judged: Sequence[Judged]) -> list[Figures]:
    """Every two judges on the same answers: correlation, mean difference, share within one point."""
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
    """A mean under ``name``, the ends of its interval (cluster-robust over questions) under ``name_low``, ``_high``."""
    value, low, high = (round(float(x), 6) for x in clustered_interval(values, questions))
    ends = (None, None) if np.isnan(low) else (low, high)
    return {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def _spearman(a: Any, b: Any) -> float | None:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return round(float(stats.spearmanr(a, b).statistic), 6)


def preferences_of_ratings(judged: Iterable[Judged]) -> dict[PairKey, str]:
    """Preferences of one judge's ratings, for every two models on the same question and turn."""
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
    """Preferences of one judge's comparisons that were read."""
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
    """Each source against single votes; several people may have voted on one pair."""
    rows = []
    for name, preferences in sources.items():
        both = [(key[0], preferences[key], vote) for key, vote in votes if key in preferences]
        if both:
            rows.append({"judge": name, **_agreement(both)})
    return rows


def _agreement(both: Sequence[tuple[str, str, str]]) -> Figures:
    """Shares of the same preference; ``both`` holds the question and the two preferences."""
    decided = [(question, a, b) for question, a, b in both if TIE not in (a, b)]
    told = _with_ends("decided", [a == b for _, a, b in decided], [question for question, _, _ in decided])
    return {
        "n": len(both),
        **_with_ends("all", [a == b for _, a, b in both], [question for question, _, _ in both]),
        "n_decided": len(decided),
        **(told if decided else {"decided": None, "decided_low": None, "decided_high": None}),
    }


def read_votes(path: Path) -> list[tuple[PairKey, str]]:
    """People's votes: ``question_id``, ``turn``, ``model_a``, ``model_b``, ``winner`` (one of them, ``tie``).

    Raises:
        DataError: not readable, or a line that is no vote.

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
