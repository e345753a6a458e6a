"""The questions that every model misses, readable, with what is known of their labels."""

from collections import Counter

from llmjobs.report.blocks import AnsweredQuestion, Block, Heading, Prose, Questions
from llmjobs.report.measure import Measures
from llmjobs.report.measure.overlap import Overlap
from llmjobs.report.study import Benchmark
from llmjobs.report.wording import count, listed, percent, plural

SHOWN = 12
MMLU_NOTE = (
    "About 6.5% of MMLU's labels are wrong or doubtful (MMLU-Redux, arXiv 2406.04127; in Virology more than"
    " half), and questions that every model misses are where such labels gather: read them before calling a"
    " model wrong."
)


def missed_blocks(measures: Measures, found: Overlap) -> list[Block]:
    """List questions that all models miss, those with the most agreement on one answer first."""
    benchmark = found.benchmark
    readable = [column for column in found.all_missed if benchmark.questions[column] is not None]
    if not found.all_missed:
        return []
    blocks: list[Block] = [Heading("Questions that every model misses")]
    blocks += _label_notes(measures, found)
    if not readable:
        blocks.append(Prose("The questions' text is not in these results, so that they cannot be shown.", kind="note"))
        return blocks
    shown = sorted(readable, key=lambda column: (-_agreement(found, column), column))[:SHOWN]
    more = len(found.all_missed) - len(shown)
    told = (
        f"{count(len(shown))} of {plural(len(found.all_missed), 'question')}, those first on which the"
        " models agree most; the gold answer in bold, each wrong option with the models that chose it."
        + (" The HTML page (--html) shows all of them." if more else "")
    )
    items = [question_block(measures, benchmark, column, found.rows) for column in shown]
    return [*blocks, Prose(told), Questions(items)]


def _agreement(found: Overlap, column: int) -> int:
    answers = Counter(int(a) for a in found.benchmark.answer[list(found.rows), column] if a >= 0)
    return max(answers.values(), default=0)


def _label_notes(measures: Measures, found: Overlap) -> list[Block]:
    benchmark, notes = found.benchmark, measures.study.label_notes
    keys = [_key(benchmark, column) for column in found.all_missed]
    reviewed = [notes[key] for key in keys if key in notes]
    if not reviewed:
        return [Prose(MMLU_NOTE, kind="note")] if benchmark.name.startswith(("mmlu", "predictions")) else []
    faulty = Counter(note for note in reviewed if note != "ok")
    everywhere = [notes[key] for column in range(benchmark.n) if (key := _key(benchmark, column)) in notes]
    base = sum(note != "ok" for note in everywhere) / len(everywhere)
    kinds = listed(f"{kind} ({number})" for kind, number in faulty.most_common())
    share = faulty.total() / len(reviewed)
    text = (
        f"{count(len(reviewed))} of these {count(len(keys))} questions have been reviewed by the label"
        f" notes given: {count(faulty.total())} ({percent(share, 0)}) are faulty themselves"
        + (f": {kinds}" if kinds else "")
        + f". Of all {count(len(everywhere))} reviewed questions {percent(base)} are."
    )
    return [Prose(text), Prose(MMLU_NOTE, kind="note")]


def _key(benchmark: Benchmark, column: int) -> tuple[str, str, str]:
    return (benchmark.name, str(benchmark.subject[column]), benchmark.doc_id[column])


def question_block(measures: Measures, benchmark: Benchmark, column: int, rows: tuple[int, ...]) -> AnsweredQuestion:
    """One question with every option and the models that chose it."""
    question = benchmark.questions[column]
    subject = str(benchmark.subject[column])
    where = f"{subject.replace('_', ' ')}, number {benchmark.doc_id[column]}"
    note = measures.study.label_notes.get(_key(benchmark, column), "")
    noted = "" if note in ("", "ok") else f"label note: {note}"
    chosen: dict[int, list[str]] = {}
    for row in rows:
        chosen.setdefault(int(benchmark.answer[row, column]), []).append(measures.label(benchmark, row))
    if not benchmark.options[column] or question is None or not question.choices:
        options = _written(benchmark, column, chosen)
        return AnsweredQuestion(where, question.text if question else "", options, "gold", noted)
    letters = [benchmark.letter(place) for place in range(len(question.choices))]
    options = [
        (letter, text, _who(chosen.get(place, []), len(rows)))
        for place, (letter, text) in enumerate(zip(letters, question.choices, strict=True))
    ]
    if -1 in chosen:
        options.append(("", "no readable answer", _who(chosen[-1], len(rows))))
    return AnsweredQuestion(where, question.text, options, benchmark.gold[column], noted)


def _written(benchmark: Benchmark, column: int, chosen: dict[int, list[str]]) -> list[tuple[str, str, str]]:
    options = [("gold", benchmark.gold[column], "")]
    for row_answer, names in chosen.items():
        row = next(r for r in range(len(benchmark.rows)) if int(benchmark.answer[r, column]) == row_answer)
        text = benchmark.texts.get((row, column), "") if row_answer >= 0 else "no readable answer"
        options.append(("", text[:400], ", ".join(names)))
    return options


def _who(names: list[str], models: int) -> str:
    if not names:
        return ""
    return f"all {models}" if len(names) == models and models > 1 else ", ".join(names)
