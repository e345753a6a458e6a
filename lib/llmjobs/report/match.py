"""Find the same question in logs of different tools: by its id if possible, otherwise by its text and options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from llmjobs.report.benchmark_table import Candidate, Key, fold
from llmjobs.report.read.scored import LETTERS
from llmjobs.report.study import Answer, Question
from llmjobs.terminal_text import agree, plural

MOST = 0.5
"""Share of a log's questions that must be found by their text before its ids are ignored."""


@dataclass(frozen=True)
class Moved:
    """Where the questions of one log are in the reference: keys, and the options' places if their order differs."""

    keys: Mapping[Key, Key] = field(default_factory=dict)
    places: Mapping[Key, tuple[int, ...]] = field(default_factory=dict)

    def key(self, key: Key) -> Key:
        """Return the question's key in the reference."""
        return self.keys.get(key, key)

    def record(self, record: Answer) -> Answer:
        """Return the record with the reference's key, its letters in the reference's order of options."""
        key = record.subject, record.doc_id
        subject, doc_id = self.key(key)
        record = record._replace(subject=subject, doc_id=doc_id)
        order = self.places.get(key)
        if order is None:
            return record
        scores = record.loglikelihoods
        if scores and len(scores) == len(order):
            scores = [scores[order.index(at)] for at in range(len(order))]
        return record._replace(
            gold=_moved(record.gold, order) or "",
            prediction=_moved(record.prediction, order),
            loglikelihoods=scores,
        )


def _moved(letter: str | None, order: Sequence[int]) -> str | None:
    at = LETTERS.index(letter) if letter in LETTERS else -1
    return LETTERS[order[at]] if 0 <= at < len(order) else letter


def match(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Moved], list[str]]:
    """Bring all candidates to the ids of one of them; say which were matched by text, and which only by id."""
    reference = max(candidates, key=lambda c: (c.run.kind == "llmjobs run", len(c.questions), len(c.records)))
    found, moves, notes = [], [], []
    for candidate in candidates:
        moved = Moved()
        if candidate is not reference and candidate.run is not reference.run:
            moved = _moves(candidate, reference)
            if moved.keys:
                number = sum(key in candidate.records for key in moved.keys)
                notes.append(
                    f"{plural(number, 'question')} of {candidate.label} {agree(number, 'was', 'were')} matched with"
                    f" {reference.label} by text"
                )
            elif not _has_texts(candidate, reference) and set(candidate.records) & set(reference.records):
                notes.append(
                    f"the questions of {candidate.label} were matched with {reference.label} only by id and gold"
                    " answer, because one of the two has no question texts"
                )
        moves.append(moved)
        found.append(_apply(candidate, moved))
    return found, moves, notes


def _has_texts(candidate: Candidate, reference: Candidate) -> bool:
    return bool(candidate.questions) and bool(reference.questions)


def _apply(candidate: Candidate, moved: Moved) -> Candidate:
    if not moved.keys and not moved.places:
        return candidate
    records = {moved.key(key): moved.record(record) for key, record in candidate.records.items()}
    questions = {
        moved.key(key): question._replace(choices=_reordered(question.choices, moved.places.get(key)))
        for key, question in candidate.questions.items()
    }
    asked = frozenset(moved.key(key) for key in candidate.asked)
    return replace(candidate, records=records, questions=questions, asked=asked)


def _reordered(choices: tuple[str, ...], order: tuple[int, ...] | None) -> tuple[str, ...]:
    return choices if order is None else tuple(choices[order.index(at)] for at in range(len(order)))


def _moves(candidate: Candidate, reference: Candidate) -> Moved:
    if not _has_texts(candidate, reference):
        return Moved()
    index = _index(reference.questions)
    theirs = reference.questions
    keys = {key: key for key, q in candidate.questions.items() if key in theirs and _same(q, theirs[key])}
    taken = set(keys)
    for key, question in candidate.questions.items():
        target = key if key in keys else _find(question, index, taken)
        if target is not None:
            keys[key] = target
            taken.add(target)
    orders = {key: _order(candidate.questions[key], theirs[target]) for key, target in keys.items()}
    places = {key: order for key, order in orders.items() if order is not None}
    if sum(key in candidate.records for key in keys) < MOST * len(candidate.records):
        return Moved()
    for key in candidate.records:
        if key not in keys and key in reference.records:
            keys[key] = (key[0], f"{key[1]} of {candidate.label}")
    return Moved({key: target for key, target in keys.items() if key != target}, places)


def _same(one: Question, other: Question) -> bool:
    if fold(one.text) != fold(other.text):
        return False
    return not one.choices or not other.choices or _folded(one) == _folded(other)


def _folded(question: Question) -> list[str]:
    return sorted(fold(choice) or choice for choice in question.choices)


def _names(question: Question) -> list[str]:
    """Return the keys by which a question can be found: text and options in any order, then the text alone."""
    text = fold(question.text)
    return [f"{text}\0{chr(0).join(_folded(question))}"] * bool(question.choices) + [text]


def _index(questions: Mapping[Key, Question]) -> dict[str, list[Key]]:
    index: dict[str, list[Key]] = {}
    for key, question in questions.items():
        for name in _names(question):
            index.setdefault(name, []).append(key)
    return index


def _find(question: Question, index: Mapping[str, list[Key]], taken: set[Key]) -> Key | None:
    """Return the reference's question; repeated texts with the same options are assigned in order."""
    names = _names(question)
    if question.choices and (whole := index.get(names[0])):
        return next((key for key in whole if key not in taken), None)
    alone = index.get(names[-1], [])
    return alone[0] if len(alone) == 1 and alone[0] not in taken else None


def _order(question: Question, reference: Question) -> tuple[int, ...] | None:
    """Return where each option is in the reference; None if the order is the same or unknown."""
    ours, theirs = ([fold(c) or c for c in q.choices] for q in (question, reference))
    if ours == theirs or len(set(ours)) < len(ours) or sorted(ours) != sorted(theirs):
        return None
    return tuple(theirs.index(choice) for choice in ours)
