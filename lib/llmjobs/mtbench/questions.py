"""Questions in FastChat's JSONL form, their categories, temperatures and references.

A line: ``{"question_id": 81, "category": "writing", "turns": ["…", "…"], "reference": ["…", "…"]}``; ``reference`` may
be missing or in a separate file (FastChat's ``reference_answer``).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmjobs.benchmarks.rows import read_rows
from llmjobs.errors import DataError
from llmjobs.work.journal import encode

CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
"""By category, 0 elsewhere. Source: FastChat, llm_judge/common.py, ``temperature_config``."""
OWN_FILE = Path(__file__).parent / "data" / "questions.jsonl"
BUNDLED = {"own": OWN_FILE, "demo": OWN_FILE.with_name("demo_questions.jsonl")}
HUB_SPLITS = ("train", "test")
MAX_TURNS = 2


@dataclass(frozen=True)
class Question:
    """A question in two turns (one is allowed)."""

    id: str
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] | None = None


def read_questions(source: str) -> list[Question]:
    """Questions of ``own``, of ``demo``, of a file, or of ``hub:OWNER/DATASET``.

    Raises:
        DataError: no such source, or a line is not a question; the message has its number.

    """
    if source.startswith("hub:"):
        return _from_rows(source, enumerate(_hub_rows(source.removeprefix("hub:")), start=1))
    path = BUNDLED.get(source) or Path(source)
    if not path.is_file():
        raise DataError(f"{source}: file not found; name a file of questions, 'own', 'demo', or 'hub:OWNER/DATASET'")
    return _from_rows(str(path), read_rows(path))


def _hub_rows(name: str) -> Sequence[Mapping[str, Any]]:
    from llmjobs.hub.datasets import dataset_rows

    errors = []
    for split in HUB_SPLITS:
        try:
            return dataset_rows(name, None, split).rows
        except DataError as error:
            errors.append(error)
    raise errors[0]


def _from_rows(source: str, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> list[Question]:
    found: dict[str, Question] = {}
    for number, row in rows:
        question = _question(f"{source}:{number}", row)
        if question.id in found:
            raise DataError(f"{source}:{number}: question_id {question.id} occurs twice; keep one")
        found[question.id] = question
    if not found:
        raise DataError(f"{source}: contains no questions")
    return list(found.values())


def _question(where: str, row: Mapping[str, Any]) -> Question:
    turns = row.get("turns") or row.get("prompt")
    number = row.get("question_id", row.get("prompt_id"))
    if not isinstance(turns, list) or not turns or not all(isinstance(t, str) and t.strip() for t in turns):
        raise DataError(f"{where}: turns: must be a list of one or two texts")
    if len(turns) > MAX_TURNS:
        raise DataError(f"{where}: turns: {len(turns)} turns; only one or two can be judged")
    if not isinstance(number, int | str) or not str(number).strip():
        raise DataError(f"{where}: question_id: must be a number or a name")
    reference = row.get("reference")
    usable = isinstance(reference, list) and len(reference) > 0 and all(isinstance(r, str) for r in reference)
    return Question(
        str(number), str(row.get("category") or "general"), tuple(turns), tuple(reference or ()) if usable else None
    )


def select(questions: Sequence[Question], categories: Sequence[str] | None, limit: int | None) -> list[Question]:
    """Return only some categories, and the first ``limit`` questions of each.

    Raises:
        DataError: no question has one of the categories.

    """
    known = list(dict.fromkeys(question.category for question in questions))
    for name in categories or ():
        if name not in known:
            raise DataError(f"mtbench.categories: '{name}' is not one of {', '.join(known)}")
    taken: dict[str, int] = {}
    kept = []
    for question in questions:
        taken[question.category] = taken.get(question.category, 0) + 1
        if (not categories or question.category in categories) and taken[question.category] <= (limit or 1 << 30):
            kept.append(question)
    return kept


def temperature_of(category: str, changed: Mapping[str, float]) -> float:
    """The category's temperature: the manifest's, otherwise MT-Bench's."""
    return changed.get(category, TEMPERATURES.get(category, 0.0))


def data_hash(questions: Sequence[Question]) -> str:
    """SHA-256 over the questions and references."""
    lines = (encode({"id": q.id, "c": q.category, "t": q.turns, "r": q.reference}) for q in questions)
    return hashlib.sha256(b"".join(lines)).hexdigest()[:16]
