"""``--show``: each question, the model's answer, right or wrong."""

from collections.abc import Callable, Sequence
from typing import Any

from llmjobs.benchmarks.base import LETTERS, Doc
from llmjobs.errors import printable
from llmjobs.runner.units import Record, Unit


def shower(
    docs_of: Callable[[str], Sequence[Doc]], write: Callable[[str], Any]
) -> Callable[[Unit, Sequence[Record]], None]:
    """Return what the runner calls with each step's records."""

    def show(unit: Unit, records: Sequence[Record]) -> None:
        docs = docs_of(unit.path)
        for record in records:
            write(render(record, docs[record["doc_id"]]))

    return show


def render(record: Record, doc: Doc) -> str:
    """A block of lines for one question; foreign control characters are written out."""
    lines = [f"── {record['model']} · {record['benchmark']} · {record['subject']} · question {record['doc_id']}"]
    lines += [f"   {printable(line)}" for line in doc.question.splitlines()]
    for letter, choice in zip(LETTERS, doc.choices, strict=False):
        mark = "→" if record["prediction"] == letter else " "
        lines.append(f" {mark} {letter}. {printable(choice)}")
    return "\n".join([*lines, f"   {verdict(record)}", ""])


def verdict(record: Record) -> str:
    """``answered B, right`` and its kin."""
    gold = printable(str(record["gold"]))
    if record["status"] == "error":
        return f"not scored: {printable(str(record.get('error', 'no reason recorded')))}"
    if record["status"] == "unparsed":
        return f"no answer could be read from {printable(str(record.get('text')))!r} (right: {gold})"
    answer = printable(str(record["prediction"]))
    return f"answered {answer}, right" if record["correct"] else f"answered {answer}, wrong (right: {gold})"
