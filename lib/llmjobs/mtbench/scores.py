"""Scores of single-answer judgments: means over turns, by turn, by category, intervals over questions.

Source of the score: FastChat, llm_judge/show_result.py: the mean over all judged turns, unread ones (-1) left out. Here
unread ones are counted beside the mean. Intervals are percentile bootstraps over whole questions, since the two turns
of a question belong together.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from llmjobs.mtbench.fastchat import Judged
from llmjobs.statistics.intervals import bootstrap_mean

INTERVAL = "95% bootstrap over questions"
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
    interval = bootstrap_mean(values, clusters=[one.question_id for one in read])
    return {"score": _r(interval.value), "low": _r(interval.low), "high": _r(interval.high), **counts}


def _by(judged: Sequence[Judged], key: Callable[[Judged], Any], name: str) -> list[Figures]:
    values = dict.fromkeys(sorted((key(one) for one in judged), key=str))
    return [{name: value, **mean_of(one for one in judged if key(one) == value)} for value in values]


def difference(first: Sequence[Judged], second: Sequence[Judged], turn: int) -> Figures | None:
    """Mean rating of ``first`` less that of ``second`` on the same questions, turn ``turn``; None without any.

    The interval is a percentile bootstrap over the questions' differences.
    """
    a, b = ({one.question_id: one.rating for one in part if one.turn == turn} for part in (first, second))
    gaps = [x - y for key, x in a.items() if x is not None and (y := b.get(key)) is not None]
    if not gaps:
        return None
    interval = bootstrap_mean(gaps)
    return {
        "turn": turn,
        "n": len(gaps),
        "difference": _r(interval.value),
        "low": _r(interval.low),
        "high": _r(interval.high),
    }


def _r(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
