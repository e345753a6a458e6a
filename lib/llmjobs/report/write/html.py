"""Write one self-contained page that filters the questions and shows every model's answer to each."""

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from llmjobs import file_operations
from llmjobs.report.blocks import Block, Figure, Finding
from llmjobs.report.measure import Measures
from llmjobs.report.study import ERROR, TEXT_CODE, UNPARSED, Benchmark
from llmjobs.report.text.shaping import marked
from llmjobs.report.text.visible import visible

TEXT_LIMIT = 4_000


def write_html(
    path: Path, measures: Measures, title: str, findings: Sequence[Finding], blocks: Sequence[Block]
) -> Path:
    """Fill the template with the data. All text is inserted as text, never as markup."""
    data = {
        "title": title,
        "partial": measures.study.partial,
        "findings": [[finding.number, marked(finding.sentence), finding.alarm] for finding in findings],
        "notices": [marked(str(notice)) for notice in measures.study.notices],
        "figures": _figures(path.parent / "figures", blocks),
        "benchmarks": [_benchmark(measures, benchmark) for benchmark in measures.study.benchmarks],
    }
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    template = files("llmjobs.report.write").joinpath("page.html").read_text(encoding="utf-8")
    file_operations.write_whole(path, template.replace("/*DATA*/", text).encode())
    return path


def _figures(folder: Path, blocks: Sequence[Block]) -> list[list[str]]:
    figures = {block.name: marked(block.caption) for block in blocks if isinstance(block, Figure)}
    return [
        [caption, base64.b64encode((folder / f"{name}.png").read_bytes()).decode()] for name, caption in figures.items()
    ]


def _benchmark(measures: Measures, benchmark: Benchmark) -> dict[str, Any]:
    found = measures.accuracy[benchmark.name]
    order = [model.row for model in found.models]
    subjects = benchmark.subjects
    place = {subject: number for number, subject in enumerate(subjects)}
    return {
        "name": benchmark.name,
        "subjects": subjects,
        "models": [measures.label(benchmark, row) for row in order],
        "accuracy": [None if not model.n else round(model.interval.value, 6) for model in found.models],
        "questions": [
            _question(measures, benchmark, column, order, place[str(benchmark.subject[column])])
            for column in range(benchmark.n)
        ],
    }


def _question(measures: Measures, benchmark: Benchmark, column: int, order: Sequence[int], subject: int) -> list[Any]:
    """Return subject, id, text, choices, gold, label note, outcomes ("1", "0", "u" or "e" per model), answers."""
    question = benchmark.questions[column]
    note = measures.study.label_notes.get(
        (benchmark.name, str(benchmark.subject[column]), benchmark.doc_id[column]), ""
    )
    return [
        subject,
        benchmark.doc_id[column],
        _text(question.text) if question else "",
        [_text(choice) for choice in question.choices] if question else [],
        benchmark.gold[column],
        "" if note == "ok" else note,
        "".join(_outcome(benchmark, row, column) for row in order),
        [_answer(benchmark, row, column) for row in order],
    ]


def _outcome(benchmark: Benchmark, row: int, column: int) -> str:
    status = int(benchmark.status[row, column])
    if status == ERROR:
        return "e"
    if status == UNPARSED:
        return "u"
    return "1" if benchmark.correct[row, column] > 0.5 else "0"


def _answer(benchmark: Benchmark, row: int, column: int) -> str:
    code = int(benchmark.answer[row, column])
    text = benchmark.texts.get((row, column))
    if 0 <= code < TEXT_CODE:
        letter = benchmark.letter(code)
        return letter if text is None or text.strip() == letter else f"{letter} ({_text(text)})"
    return _text(text) if text else ""


def _text(text: str) -> str:
    shown = visible(text)
    return shown if len(shown) <= TEXT_LIMIT else f"{shown[:TEXT_LIMIT]} … ({len(shown):,} characters)"
