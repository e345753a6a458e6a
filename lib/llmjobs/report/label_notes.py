"""Reads MMLU-Redux's notes on wrong labels, and finds the questions that they speak of."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from llmjobs.errors import DataError
from llmjobs.report.study import Study

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
    """Return (benchmark, subject, doc_id) → ``ok`` or what is wrong, for the questions reviewed.

    Questions are found by their text, blanks and punctuation aside, since the notes carry no row numbers;
    where a text stands twice with unlike notes, by text and options.
    """
    if not folder.is_dir():
        raise DataError(f"--label-notes {folder}: no such folder")
    subjects = {str(subject) for benchmark in study.benchmarks for subject in benchmark.subject}
    notes = {subject: _read(folder, subject) for subject in subjects}
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


def _read(folder: Path, subject: str) -> dict[str, str]:
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
