"""Scores of single-answer judgments: means over turns, by turn, by category, intervals over questions.

Source of the score: FastChat, llm_judge/show_result.py: the mean over all judged turns, unread ones (-1) left out. Here
unread ones are counted beside the mean. The two turns of a question belong together: intervals are cluster-robust over
questions with Student's t, which holds its level for the ten questions of a category too, where a percentile bootstrap
does not (docs/statistics.md has the rates).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from llmjobs.mtbench.fastchat import Judged
from llmjobs.statistics.intervals import Interval, clustered_interval, group_sums
from llmjobs.statistics.paired import holm, sign_flip_p, simultaneous_level

INTERVAL = "95% cluster-robust over questions, Student's t"
LOWEST, HIGHEST = 1.0, 10.0
Figures = dict[str, Any]


def score_all(judged: Sequence[Judged], categories: Mapping[str, str]) -> list[Figures]:
    """Scores of every judge and model, judges and models in the order in which they come up."""
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
    """Mean, ends of its interval, and how many ratings were read or not; None where none was read."""
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
    """Mean rating of ``first`` less that of ``second`` on the same questions, turn ``turn``; None without any."""
    found = _compared([one for one in first if one.turn == turn], [one for one in second if one.turn == turn])
    return {"turn": turn, **found} if found else None


def differences(judged: Sequence[Judged]) -> list[Figures]:
    """Every two agents of every judge on the turns that both were rated on, the one with the higher mean first.

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
