"""The answer: one sentence, how sure it is, the evidence, what was ruled out, and what is not known."""

from collections.abc import Sequence
from typing import Any

from llmjobs.choose.candidates import Candidate, Measured
from llmjobs.choose.constraints import LOSE, QUANTITIES
from llmjobs.choose.decide import (
    AS_GOOD,
    BEST,
    MEETS,
    MISSES,
    ONLY,
    PREFERENCES,
    UNKNOWN,
    Alternative,
    Decision,
    Judged,
    cheaper_by,
    more_questions,
)
from llmjobs.choose.results import Found
from llmjobs.report.blocks import Column, Table
from llmjobs.report.numbers import count, interval, percent, points, ratio
from llmjobs.report.wording import DASH, agree, listed, sentence
from llmjobs.statistics.intervals import Interval
from llmjobs.statistics.paired import WeightedDifference

CHOSEN, EQUAL, ALIKE, WORSE = "chosen", "as good", "not told apart", "worse"
OUTCOMES = {MISSES: "ruled out", UNKNOWN: "not judged"}
SHOWN = ("memory", "decode", "first_token", "size", "energy")
"""Quantities in the table, if a candidate has them."""
LEAST = {"memory": "needs the least memory", "decode": "is the fastest", "size": "has the smallest weights",
         "energy": "takes the least energy"}  # fmt: skip


def questions(decision: Decision) -> int:
    """How many questions the candidates were compared on."""
    counts = [judged.questions for judged in decision.judged if judged.score]
    return max(counts, default=0)


def answer(decision: Decision) -> str:
    """Return the answer in one sentence."""
    one = decision.winner
    if one is not None and one.score is not None:
        facts = [f"{accuracy(decision, one.score)}"]
        for key in ("decode", "memory"):
            found, _ = one.candidate.measured(key, decision.wish.context)
            facts += [QUANTITIES[key].show(found.value)] if found else []
        return f"Run {one.candidate.title}: {', '.join(facts)}."
    asked = listed(constraint.text for constraint in decision.wish.constraints)
    known = "is known to meet" if decision.with_state(UNKNOWN) else "meets"
    return f"No candidate {known} the constraints ({asked})." if asked else "No candidate has a known accuracy."


def accuracy(decision: Decision, score: Interval) -> str:
    """``58.1% on mmlu (56.2 to 60.0)``."""
    weights = decision.wish.benchmarks
    mean = ", mean" if len(weights) > 1 else ""
    if len(set(weights.values())) > 1:
        mean = f", weighted {' to '.join(f'{weight:g}' for weight in weights.values())}"
    return f"{percent(score.value)} on {listed(weights)} ({interval(score.low, score.high)}{mean})"


def how_sure(decision: Decision) -> str:
    """Say how sure the choice is, or how near the nearest candidates are if there is none."""
    winner, wish, n = decision.winner, decision.wish, questions(decision)
    if winner is None:
        near = "; ".join(f"{one.label} {' and '.join(one.reasons)}" for one in decision.nearest[:3])
        return f"The nearest: {near}." if near else ""
    others = len(decision.feasible) - 1
    margin = f"{points(wish.margin)} {'point' if wish.margin == 0.01 else 'points'}"
    if decision.verdict == ONLY:
        whole = "that is known to meet the constraints" if wish.constraints else "whose accuracy is known"
        return f"It is the only candidate {whole}." if len(decision.judged) > 1 else "It is the only candidate."
    if decision.verdict == BEST:
        whom = f"each of the {others} others" if others > 1 else "the other one"
        who = f" that {agree(others, 'meets', 'meet')} the constraints" if wish.constraints else ""
        return f"It is more accurate than {whom}{who}, with 95% confidence{' for all together' * (others > 1)}."
    key = PREFERENCES[wish.prefer]
    if decision.verdict == AS_GOOD:
        good = len(decision.as_good)
        if key and good > 1:
            return (
                f"Of the {good} candidates that are as good as the best within {margin} (95% confidence for all"
                f" together), it {LEAST[key]}."
            )
        return f"It is as good as the best within {margin}, with 95% confidence for all comparisons together."
    rivals = [one.label for one in decision.group if one is not winner]
    more = more_questions(decision.needed, n) if decision.needed is not None else ""
    apart = f"it cannot be told apart from {listed(rivals)}" if rivals else "others may still be as good"
    return (
        f"These data do not decide it: on {count(n)} questions {apart}, and it is not shown to be as good as the best"
        f" within {margin} either. If the differences stay as observed, {more}."
    )


def gain(result: WeightedDifference) -> str:
    """``+1.2 points, −0.4 to 2.8``."""
    return f"{points(result.difference, sign=True)} points, {interval(result.low, result.high)}"


def savings(candidate: Candidate, other: Candidate, context: int | None) -> str:
    """Say what a candidate needs less than another one: ``needs half the memory and decodes 2.1 times as fast``."""
    parts = []
    for key, less in (("memory", "of the memory"), ("size", "of the size")):
        share = cheaper_by(candidate, other, key, context)
        if share is not None and share <= 0.95:
            parts.append(f"{'half' if 0.475 <= share <= 0.525 else percent(share, 0)} {less}")
    said = [f"needs {listed(parts)}"] if parts else []
    speed = cheaper_by(candidate, other, "decode", context)
    if speed is not None and speed <= 0.95:
        said.append(f"decodes {ratio(1 / speed)} times as fast")
    return " and ".join(said)


def alternative(decision: Decision, one: Alternative) -> str:
    """A cheaper candidate that is as good, or may be."""
    assert decision.winner is not None
    n = one.difference.n
    less = savings(one.judged.candidate, decision.winner.candidate, decision.wish.context)
    if one.proven:
        return (
            f"{one.judged.label} is as good as the best within {points(decision.wish.margin)} points"
            f" ({gain(one.difference)}) and {less}."
        )
    more = f"; {more_questions(one.needed, n)}" if one.needed is not None else ""
    return (
        f"{one.judged.label} cannot be told apart from it on {count(n)} questions ({gain(one.difference)}), but is not"
        f" shown to be as good, and {less}{more}."
    )


def relaxations(decision: Decision) -> list[str]:
    """What giving up each constraint would buy."""
    found = []
    for one in decision.relaxed:
        score = one.chosen.score
        limit = f"another {one.constraint.option}" if one.limit is None else one.constraint.loosened(one.limit)
        shown = f", {accuracy(decision, score)}" if score else ""
        more = f", against the chosen one {gain(one.difference)}" if one.difference else ""
        found.append(f"With {limit} instead of {one.constraint.stated}: {one.chosen.label}{shown}{more}.")
    return found


def ruled_out(decision: Decision) -> list[str]:
    """Each candidate that misses a constraint, the nearest first, with the reason."""
    failed = [one for one in decision.with_state(MISSES) if one.candidate.failed]
    return [f"{one.label} {'; '.join(one.reasons)}" for one in [*decision.nearest, *failed]]


def not_judged(decision: Decision) -> list[str]:
    """Each candidate for which something that was asked is not known."""
    return [f"{one.label}: {'; '.join(one.reasons)}" for one in decision.with_state(UNKNOWN)]


def not_known(decision: Decision) -> list[str]:
    """What was not asked for, but a reader would want to know of the chosen one."""
    if decision.winner is None:
        return []
    one = decision.winner.candidate
    missing = [key for key in ("memory", "decode") if one.measured(key, decision.wish.context)[0] is None]
    lines = [f"{one.label}: {one.measured(key, decision.wish.context)[1]}." for key in missing]
    given = [key for key in SHOWN if (found := one.measured(key)[0]) and found.given]
    if given:
        lines.append(
            f"{sentence(listed(QUANTITIES[key].noun for key in given))}: from the table of costs, not measured."
        )
    return lines


def outcome(decision: Decision, one: Judged) -> str:
    """One or two words on a candidate for the table."""
    if one is decision.winner:
        return CHOSEN
    if one.state != MEETS:
        return OUTCOMES[one.state]
    return EQUAL if one in decision.as_good else ALIKE if one in decision.group else WORSE


def evidence(decision: Decision) -> Table:
    """The table of all candidates: the chosen one first, then those that meet the constraints, by accuracy."""
    context = decision.wish.context
    order = sorted(
        decision.judged,
        key=lambda one: (one is not decision.winner, one.state != MEETS, one.state == UNKNOWN),
    )
    used = [key for key in SHOWN if any(one.candidate.measured(key, context)[0] for one in order)]
    names = list(decision.wish.benchmarks)
    several = len(names) > 1
    lost = any(constraint.key == LOSE for constraint in decision.wish.constraints)
    columns = [Column("candidate", "left", 1), Column("accuracy (95% interval)")]
    columns += [Column(name) for name in names] if several else []
    columns += [Column(QUANTITIES[key].title) for key in used]
    columns += [Column("loss (95%)")] if lost else []
    columns += [Column("less the chosen one (95%)")] if decision.against else []
    columns += [Column("outcome")]
    rows = []
    for one in order:
        score = one.score
        row = [one.label, f"{percent(score.value)} ({interval(score.low, score.high)})" if score else DASH]
        row += [percent(one.by_benchmark[name].value) if name in one.by_benchmark else DASH for name in names * several]
        row += [_shown(key, one.candidate.measured(key, context)[0]) for key in used]
        if lost:
            row.append(_minus(one.loss.result) if one.loss else DASH)
        if decision.against:
            against = decision.against.get(one.label)
            row.append(_minus(against) if against else DASH)
        rows.append([*row, outcome(decision, one)])
    note = "A dash: not measured." + (
        f" Differences: points on the same questions; all {len(decision.against)} intervals hold together."
        if len(decision.against) > 1
        else ""
    )
    chosen = frozenset({0} if decision.winner else ())
    return Table(f"Candidates on {count(questions(decision))} questions", columns, rows, chosen, note)


def _shown(key: str, found: Measured | None) -> str:
    return DASH if found is None else QUANTITIES[key].show(found.value)


def _minus(result: WeightedDifference) -> str:
    """The second less the first, with the ends in order."""
    return f"{points(-result.difference, sign=True)} ({interval(-result.high, -result.low)})"


def lines_of(decision: Decision, found: Found) -> list[tuple[str, list[str]]]:
    """The parts of the answer below its sentence: a heading and its lines; empty parts are left out."""
    parts = [
        ("", list(filter(None, [how_sure(decision), *(alternative(decision, one) for one in decision.alternatives)]))),
        ("Ruled out", ruled_out(decision)),
        ("Cannot be judged", not_judged(decision)),
        ("What another limit would buy", relaxations(decision)),
        ("Not known", not_known(decision)),
        ("Notes on the input", list(found.notices)),
    ]
    return [(heading, lines) for heading, lines in parts if lines]


def to_json(decision: Decision, found: Found, commands: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The answer for programs; shares are between 0 and 1, sizes are bytes, times are seconds."""
    return {
        "answer": answer(decision),
        "verdict": decision.verdict,
        "chosen": decision.winner.label if decision.winner else None,
        "benchmarks": dict(decision.wish.benchmarks),
        "questions": questions(decision),
        "prefer": decision.wish.prefer,
        "margin": decision.wish.margin,
        "constraints": {one.key: one.limit for one in decision.wish.constraints},
        "machine": found.machine or None,
        "level_of_each_difference": round(decision.level, 6),
        "questions_needed": _whole(decision.needed),
        "candidates": [_candidate(decision, one) for one in decision.judged],
        "alternatives": [
            {
                "candidate": one.judged.label,
                "as_good": one.proven,
                "difference": _difference(one.difference),
                "questions_needed": _whole(one.needed),
            }
            for one in decision.alternatives
        ],
        "relaxed": [
            {
                "constraint": one.constraint.key,
                "limit": one.limit,
                "candidate": one.chosen.label,
                "difference": _difference(one.difference) if one.difference else None,
            }
            for one in decision.relaxed
        ],
        "commands": [{"for": title, "text": text} for title, text in commands],
        "notes": list(found.notices),
        "partial": found.partial,
    }


def _candidate(decision: Decision, one: Judged) -> dict[str, Any]:
    candidate, context = one.candidate, decision.wish.context
    figures = {key: candidate.measured(key, context)[0] for key in QUANTITIES if key != LOSE}
    against = decision.against.get(one.label)
    return {
        "candidate": one.label,
        "model": candidate.model,
        "id": candidate.id,
        "revision": candidate.revision or None,
        "precision": candidate.precision or None,
        "engine": candidate.engine or None,
        "device": candidate.device or None,
        "outcome": outcome(decision, one),
        "reasons": [] if one.state == MEETS else one.reasons,
        "accuracy": _interval(one.score),
        "by_benchmark": {name: _interval(value) for name, value in one.by_benchmark.items()},
        "questions": one.questions,
        "loss": {"reference": one.loss.reference.label, **_negated(one.loss.result)} if one.loss else None,
        "less_the_chosen_one": _negated(against) if against else None,
        "figures": {
            key: {"value": value.value, "low": value.ends[0], "high": value.ends[1], "repetitions": value.n,
                  "context": value.context, "measured": not value.given}
            for key, value in figures.items()
            if value
        },
        "sources": list(candidate.sources),
    }  # fmt: skip


def _interval(value: Interval | None) -> dict[str, float] | None:
    if value is None:
        return None
    return {"value": round(value.value, 6), "low": round(value.low, 6), "high": round(value.high, 6)}


def _difference(result: WeightedDifference) -> dict[str, float]:
    return {"value": round(result.difference, 6), "low": round(result.low, 6), "high": round(result.high, 6)}


def _negated(result: WeightedDifference) -> dict[str, float]:
    return {"value": round(-result.difference, 6), "low": round(-result.high, 6), "high": round(-result.low, 6)}


def _whole(value: float | None) -> int | None:
    """A number of questions; None if it is not finite, which JSON cannot hold."""
    return None if value is None or value > 1e15 else round(value)
