"""Brings readable questions to logs that carry only ids, from a folder of CSV files in the MMLU layout."""

import csv
from collections.abc import Sequence
from pathlib import Path

from llmjobs.errors import DataError
from llmjobs.report.study import Question, RawRun


def attach_questions(runs: Sequence[RawRun], folder: Path) -> None:
    """Read ``folder/SUBJECT.csv`` (or ``SUBJECT_test.csv``) for every subject that lacks its questions.

    Columns are question, the choices and the answer, with or without a header row; the row number is the
    doc_id.
    """
    if not folder.is_dir():
        raise DataError(f"--questions {folder}: no such folder")
    known: dict[str, list[Question]] = {}
    for run in runs:
        for entry in run.entries:
            for benchmark, records in entry.records.items():
                for subject in {record.subject for record in records}:
                    if subject not in known:
                        known[subject] = _read(folder, subject)
                    for number, question in enumerate(known[subject]):
                        run.questions.setdefault((benchmark, subject, str(number)), question)


def _read(folder: Path, subject: str) -> list[Question]:
    for name in (f"{subject}.csv", f"{subject}_test.csv"):
        path = folder / name
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            with path.open(encoding="utf-8", errors="replace", newline="") as file:
                rows = [row for row in csv.reader(file) if len(row) >= 3]
            if rows and rows[0][0].strip().lower() == "question":
                rows = rows[1:]
            return [Question(row[0], tuple(row[1:-1])) for row in rows]
    return []
