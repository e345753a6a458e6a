"""Read and write FastChat's files.

``model_answer``: ``{"question_id", "model_id", "choices": [{"index": 0, "turns": [...]}]}``. ``model_judgment``,
single: ``{"question_id", "model", "judge": [name, prompt], "judgment", "score", "turn"}``, a score of -1 if none was
read; pairwise: ``{"question_id", "model_1", "model_2", "g1_winner", "g2_winner", "judge", "turn"}``. Duplicates, failed
answers and unread judgments are counted, never dropped silently.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmjobs.benchmarks.rows import read_rows
from llmjobs.errors import DataError
from llmjobs.mtbench.questions import Question
from llmjobs.work.journal import encode

ERROR_TEXT = "$ERROR$"
"""What FastChat stores in place of an answer or a judgment that failed."""
UNREAD_SCORE = -1
MOST_TURNS = 100
MOST_SCORE = 1e6
"""FastChat's scores are from 1 to 10; a score far outside means a damaged file."""


@dataclass(frozen=True)
class Answer:
    """An agent's turns on one question."""

    question_id: str
    model: str
    turns: tuple[str, ...]
    error: str | None = None


@dataclass
class AnswerFile:
    """A ``model_answer`` file: the last line of a question counts, as in FastChat."""

    answers: list[Answer] = field(default_factory=list)
    lines: int = 0
    duplicates: int = 0
    models: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Judged:
    """One single-answer judgment; ``rating`` is None if the file has none."""

    judge: str
    prompt: str
    model: str
    question_id: str
    turn: int
    rating: float | None
    judgment: str = ""


@dataclass(frozen=True)
class Compared:
    """One comparison in both orders; ``winner``: ``first``, ``second``, ``tie``, or None if an order is unreadable."""

    judge: str
    prompt: str
    first: str
    second: str
    question_id: str
    turn: int
    winner: str | None
    flipped: bool | None
    orders: tuple[str | None, str | None] = (None, None)


@dataclass
class JudgmentFile:
    """A ``model_judgment`` file."""

    single: list[Judged] = field(default_factory=list)
    """Every line, including duplicates."""
    pairs: list[Compared] = field(default_factory=list)
    lines: int = 0

    def distinct(self) -> list[Judged]:
        """One judgment for each judge, model, question and turn: the last readable one, otherwise an unreadable one."""
        found: dict[tuple[str, str, str, int], Judged] = {}
        for one in self.single:
            key = (one.judge, one.model, one.question_id, one.turn)
            if one.rating is not None or key not in found:
                found[key] = one
        return list(found.values())

    def counts(self) -> dict[str, int]:
        """What the file contains besides readable judgments."""
        distinct = self.distinct()
        return {
            "lines": self.lines,
            "single": len(distinct),
            "unread_lines": sum(one.rating is None for one in self.single),
            "unread": sum(one.rating is None for one in distinct),
            "duplicates": len(self.single) - len(distinct),
            "pairs": len(self.pairs),
            "pairs_unread": sum(one.winner is None for one in self.pairs),
            "flips": sum(bool(one.flipped) for one in self.pairs),
        }


def read_answers(path: Path) -> AnswerFile:
    """Read a ``model_answer`` or ``reference_answer`` file.

    Raises:
        DataError: not readable, or a line is not an answer.

    """
    file, found = AnswerFile(), {}
    for number, row in read_rows(path):
        answer = _answer(f"{path}:{number}", row)
        file.lines += 1
        file.duplicates += answer.question_id in found
        found[answer.question_id] = answer
    if not found:
        raise DataError(f"{path}: contains no answers")
    file.answers = list(found.values())
    file.models = list(dict.fromkeys(answer.model for answer in file.answers))
    return file


def _answer(where: str, row: Mapping[str, Any]) -> Answer:
    choices = row.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
    turns = first.get("turns")
    if "question_id" not in row or not isinstance(turns, list):
        raise DataError(f"{where}: not an answer in FastChat's format: question_id and choices[0].turns are needed")
    texts = tuple(str(turn) if turn is not None else ERROR_TEXT for turn in turns)
    bad = next((i for i, text in enumerate(texts, start=1) if text.strip() in (ERROR_TEXT, "ERROR")), None)
    error = None if bad is None and texts else f"turn {bad or 1} is missing or an error in the file"
    return Answer(str(row["question_id"]), str(row.get("model_id") or ""), texts, error)


def read_judgments(path: Path) -> JudgmentFile:
    """Read a ``model_judgment`` file, single or pairwise.

    Raises:
        DataError: not readable, or a line is not a judgment.

    """
    file = JudgmentFile()
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        file.lines += 1
        if "g1_winner" in row:
            file.pairs.append(_compared(where, row))
        else:
            file.single.append(_judged(where, row))
    if not file.lines:
        raise DataError(f"{path}: contains no judgments")
    return file


def _head(where: str, row: Mapping[str, Any], *names: str) -> tuple[str, str, str, int]:
    missing = [name for name in ("question_id", "turn", *names) if row.get(name) is None]
    if missing:
        raise DataError(f"{where}: not a judgment in FastChat's format: {missing[0]} is missing")
    judge = row.get("judge")
    name, prompt = (judge[0], judge[1]) if isinstance(judge, list) and len(judge) > 1 else (judge or "judge", "")
    return str(name), str(prompt), str(row["question_id"]), turn_of(where, row["turn"])


def turn_of(where: str, value: Any) -> int:
    """The number of a turn, given as a number or as text.

    Raises:
        DataError: it is not a small whole number above 0.

    """
    try:
        turn = int(value)
        if 1 <= turn <= MOST_TURNS and float(value) == turn:
            return turn
    except (TypeError, ValueError, OverflowError):
        pass
    raise DataError(f"{where}: turn: must be 1 or 2")


def _judged(where: str, row: Mapping[str, Any]) -> Judged:
    judge, prompt, question_id, turn = _head(where, row, "model", "score")
    score = row["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= MOST_SCORE:
        raise DataError(f"{where}: score: must be a number from 1 to 10, or -1 if none could be parsed")
    rating = None if score == UNREAD_SCORE else float(score)
    return Judged(judge, prompt, str(row["model"]), question_id, turn, rating, str(row.get("judgment") or ""))


def _compared(where: str, row: Mapping[str, Any]) -> Compared:
    judge, prompt, question_id, turn = _head(where, row, "model_1", "model_2")
    names = {"model_1": "first", "model_2": "second", "tie": "tie"}
    orders = tuple(names.get(str(row.get(key))) for key in ("g1_winner", "g2_winner"))
    both = combine(orders)
    models = str(row["model_1"]), str(row["model_2"])
    return Compared(judge, prompt, *models, question_id, turn, both["winner"], both["flipped"], (orders[0], orders[1]))


def answer_lines(model: str, records: Iterable[Mapping[str, Any]]) -> bytes:
    """Answer records as a ``model_answer`` file; a failed answer becomes FastChat's mark for it."""
    lines = []
    for record in records:
        turns = [*record["turns"], *[ERROR_TEXT] * (len(record["questions"]) - len(record["turns"]))]
        head = {"question_id": _number(record["question_id"]), "answer_id": _id(model, record["question_id"])}
        lines.append(head | {"model_id": model, "choices": [{"index": 0, "turns": turns}], "tstamp": 0.0})
    return b"".join(map(encode, lines))


def single_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Judgment records as a ``model_judgment`` file; an unreadable rating becomes FastChat's -1."""
    lines = [
        {
            "question_id": _number(record["question_id"]),
            "model": record["model"],
            "judge": [record["judge"], record["prompt"]],
            "judgment": record["judgment"] or ERROR_TEXT,
            "score": UNREAD_SCORE if record["rating"] is None else record["rating"],
            "turn": record["turn"],
            "tstamp": 0.0,
        }
        for record in records
        if record["status"] != "not_judged"
    ]
    return b"".join(map(encode, lines))


def pair_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Comparison records as a pairwise ``model_judgment`` file."""
    lines = []
    for record in records:
        if record["status"] == "not_judged":
            continue
        named = ({"A": "model_1", "B": "model_2"}, {"A": "model_2", "B": "model_1"})
        line = {"question_id": _number(record["question_id"]), "model_1": record["first"], "model_2": record["second"]}
        for place, (names, order) in enumerate(zip(named, record["orders"], strict=True), start=1):
            verdict = order["verdict"]
            line[f"g{place}_winner"] = names.get(verdict, "tie" if verdict == "tie" else "error")
            line[f"g{place}_judgment"] = order["judgment"] or ERROR_TEXT
        lines.append(line | {"judge": [record["judge"], record["prompt"]], "turn": record["turn"], "tstamp": 0.0})
    return b"".join(map(encode, lines))


def _number(question_id: str) -> int | str:
    is_number = question_id.isascii() and question_id.isdigit() and len(question_id) < 19
    return int(question_id) if is_number else question_id


def _id(*parts: Sequence[str]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:22]


def with_references(questions: Sequence[Question], path: Path) -> list[Question]:
    """Replace the questions' references by those of a FastChat ``reference_answer`` file.

    Raises:
        DataError: the file cannot be read, or matches none of the questions.

    """
    answers = {answer.question_id: answer.turns for answer in read_answers(path).answers if not answer.error}
    if not answers.keys() & {question.id for question in questions}:
        raise DataError(f"{path}: has no reference for any of the questions; name the file that belongs to them")
    return [replace(q, reference=answers.get(q.id)) for q in questions]


def combine(winners: Sequence[str | None]) -> dict[str, Any]:
    """The winner over both orders, and whether the order mattered."""
    if None in winners:
        return {"winner": None, "flipped": None}
    same = winners[0] == winners[1]
    return {"winner": winners[0] if same else "tie", "flipped": not same}
