"""Readable questions for logs that only contain ids, and MMLU-Redux's notes on wrong labels."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmjobs.errors import DataError
from llmjobs.report.read.csv_or_jsonl import encoding_of
from llmjobs.report.read.option_letters import OPTION_LETTERS, letter_of, said_letter
from llmjobs.report.study import Answer, Question, RawEntry, RawRun, Study
from llmjobs.terminal_text import agree, plural

# Add questions and answers to logs that only contain ids, from a folder of CSV files in MMLU's layout.

AGREE = 0.9
"""Share of a log's gold answers that must agree with the file before it counts as the same questions."""
ENOUGH = 5
"""With fewer gold answers, agreement is not checked."""


def attach_questions(pairs: Sequence[tuple[RawRun, RawEntry]], folder: Path) -> None:
    """Read ``folder/SUBJECT.csv`` (or ``SUBJECT_test.csv``) for every subject that lacks its questions.

    Columns are question, the choices and the answer, with or without a header row; the row number is the doc_id. The
    answers are compared with the log's gold answers.

    Raises:
        DataError: there is no such folder, or a file's answers differ from those of the log.

    """
    if not folder.is_dir():
        raise DataError(f"--questions {folder}: no such folder")
    files: dict[str, list[Question]] = {}
    missing: dict[tuple[int, str], RawRun] = {}
    noticed: set[tuple[int, str, str]] = set()
    for run, entry in pairs:
        for benchmark, records in entry.records.items():
            by_subject: dict[str, list[Answer]] = {}
            for record in records:
                by_subject.setdefault(record.subject, []).append(record)
            for subject, part in by_subject.items():
                if subject not in files:
                    files[subject] = _read(folder, subject)
                known = files[subject]
                if not known:
                    missing[id(run), subject] = run
                    continue
                first = (id(run), benchmark, subject) not in noticed
                noticed.add((id(run), benchmark, subject))
                _agree(run if first else None, folder, benchmark, subject, known, part)
                for number, question in enumerate(known):
                    key = benchmark, subject, str(number)
                    present = run.questions.get(key)
                    run.questions[key] = present._replace(gold=question.gold) if present else question
    for (_, subject), run in missing.items():
        run.notice(f"--questions {folder.name}", f"has no file for {subject} ({subject}.csv or {subject}_test.csv)")


def _agree(
    run: RawRun | None, folder: Path, benchmark: str, subject: str, known: Sequence[Question], records: Sequence[Answer]
) -> None:
    """Refuse a file whose answers differ from those of the log; a few differences become a notice."""
    places = {r.doc_id: int(r.doc_id) for r in records if r.doc_id.isdecimal() and len(r.doc_id) < 10}
    beyond = sum(place >= len(known) for place in places.values())
    pairs = [
        (record.gold, known[place].gold)
        for record in records
        if (place := places.get(record.doc_id)) is not None and place < len(known)
        if letter_of(record.gold) and known[place].gold
    ]
    same = sum(letter_of(ours) == theirs for ours, theirs in pairs)
    if len(pairs) >= ENOUGH and same < AGREE * len(pairs):
        raise DataError(
            f"--questions {folder}: the answers of {subject} are not the gold answers of {benchmark} ({same} of"
            f" {len(pairs)} agree); the file contains other questions, or the log's ids are not row numbers that start"
            " at 0"
        )
    if run is None:
        return
    where = f"--questions {folder.name}, {subject}"
    if same < len(pairs):
        unlike = len(pairs) - same
        run.notice(
            where,
            f"{unlike} of {plural(len(pairs), 'answer')} {agree(unlike, 'differs', 'differ')} from the log's"
            " gold answers; the log's are used",
        )
    if beyond:
        run.notice(
            where,
            f"the file has {plural(len(known), 'question')}, but {plural(beyond, 'id', 'ids')} in the log"
            f" {agree(beyond, 'is', 'are')} larger",
        )


def _read(folder: Path, subject: str) -> list[Question]:
    for name in (f"{subject}.csv", f"{subject}_test.csv"):
        path = folder / name
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            with path.open(encoding=encoding_of(path), errors="replace", newline="") as file:
                rows = [row for row in csv.reader(file) if len(row) >= 3]
            if rows and rows[0][0].strip().lower() == "question":
                rows = rows[1:]
            by_place = bool(rows) and all(row[-1].strip().isdecimal() for row in rows)
            return [Question(row[0], tuple(row[1:-1]), gold=_gold(row[-1], by_place)) for row in rows]
    return []


def _gold(text: str, by_place: bool) -> str:
    text = text.strip()
    if by_place:
        return OPTION_LETTERS[int(text)] if len(text) == 1 else ""
    return letter_of(text) or text


@dataclass
class _Missing:
    """Rows and questions of one benchmark without a gold answer, and rows that have one."""

    rows: int
    questions: set[tuple[str, str]]
    filled: int
    kept: int


def fill_gold(pairs: Sequence[tuple[RawRun, RawEntry]]) -> None:
    """Score rows without a gold answer by the questions' answers; leave out and count the others.

    Raises:
        DataError: a benchmark has no gold answer at all.

    """
    found: dict[tuple[int, str], tuple[RawRun, _Missing]] = {}
    for run, entry in pairs:
        for benchmark, records in entry.records.items():
            count = found.setdefault((id(run), benchmark), (run, _Missing(0, set(), 0, 0)))[1]
            if any(map(_lacks_gold, records)):
                records[:] = _filled(run, benchmark, records, count)
            count.kept += len(records)
    for (_, benchmark), (run, count) in found.items():
        if count.rows and not count.kept:
            raise DataError(
                f"{run.path.name}, {benchmark}: no row has a gold answer, so nothing can be scored; add --questions"
                " FOLDER with the answers in SUBJECT.csv files, or a column 'gold' or 'correct' to the table"
            )
        if count.rows:
            run.notice(
                f"{run.path.name}, {benchmark}",
                f"{plural(len(count.questions), 'question has', 'questions have')} no gold answer;"
                f" {plural(count.rows, 'row is', 'rows are')} left out",
            )
        if count.filled:
            run.notice(
                f"{run.path.name}, {benchmark}",
                f"{plural(count.filled, 'row')} without a gold answer {agree(count.filled, 'is', 'are')} scored"
                " against the answers from --questions",
            )


def _filled(run: RawRun, benchmark: str, records: Sequence[Answer], count: _Missing) -> list[Answer]:
    kept = []
    for record in records:
        key = record.subject, record.doc_id
        question = run.questions.get((benchmark, *key))
        if not _lacks_gold(record):
            kept.append(record)
        elif question and question.gold:
            kept.append(_judged(record, question))
            count.filled += 1
        else:
            count.rows += 1
            count.questions.add(key)
    return kept


def _lacks_gold(record: Answer) -> bool:
    return not record.gold and record.correct is None and record.score is None and record.status != "error"


def _judged(record: Answer, question: Question) -> Answer:
    said = record.prediction
    if said is not None and letter_of(question.gold):
        said = said_letter(said) or (OPTION_LETTERS[question.choices.index(said)] if said in question.choices else None)
    status = "ok" if said is not None else "unparsed"
    return record._replace(gold=question.gold, prediction=said, correct=said == question.gold, status=status)


# MMLU-Redux's notes on wrong labels, and the questions that they refer to.

READABLE = {
    "bad_question_clarity": "question unclear",
    "bad_options_clarity": "options unclear",
    "no_correct_answer": "no correct answer",
    "multiple_correct_answers": "more than one correct answer",
    "wrong_groundtruth": "wrong gold answer",
    "wrong_ground_truth": "wrong gold answer",
    "n/a": "ok",
    "expert": "needs an expert",
}


def read_label_notes(folder: Path, study: Study) -> dict[tuple[str, str, str], str]:
    """Return (benchmark, subject, doc_id) → ``ok`` or what is wrong, for the reviewed questions.

    The notes have no row numbers, so questions are found by their text without blanks and punctuation. If a text occurs
    twice with different notes, the options are compared too.
    """
    if not folder.is_dir():
        raise DataError(f"--label-notes {folder}: no such folder")
    subjects = {str(subject) for benchmark in study.benchmarks for subject in benchmark.subject}
    notes = {subject: _read_notes(folder, subject) for subject in subjects}
    found = {}
    for benchmark in study.benchmarks:
        for column, question in enumerate(benchmark.questions):
            subject = str(benchmark.subject[column])
            known = notes[subject]
            note = (known.get(_fold(*question[:2])) or known.get(_fold(question.text))) if question else None
            if note:
                found[benchmark.name, subject, benchmark.doc_id[column]] = note
    return found


def _fold(text: str, choices: Sequence[str] = ()) -> str:
    return re.sub(r"\W+", "", " ".join((text, *choices)).lower())


def _read_notes(folder: Path, subject: str) -> dict[str, str]:
    for name in (f"mmlu_{subject}.csv", f"{subject}.csv"):
        path = folder / name
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            return _notes(_text(path))
    return {}


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:  # some of the published files are not UTF-8
        return data.decode("cp1252", errors="replace")


def _notes(text: str) -> dict[str, str]:
    notes: dict[str, str] = {}
    unlike: set[str] = set()
    delimiter = ";" if text.partition("\n")[0].count(";") > 3 else ","
    for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter):
        kind = str(row.get("error_type") or "ok").strip().lower().replace(" ", "_")
        note = READABLE.get(kind, kind.replace("_", " "))
        plain = _fold(str(row.get("question") or ""))
        if notes.setdefault(plain, note) != note:
            unlike.add(plain)
        notes[plain + _fold(str(row.get("choices") or ""))] = note
    return {key: note for key, note in notes.items() if key not in unlike}
