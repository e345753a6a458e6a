"""``llmjobs choose RESULTS``: read, decide, print and write the answer."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from llmjobs import file_operations
from llmjobs.choose.answer import answer, evidence, lines_of, questions, to_json
from llmjobs.choose.decide import Decision, Wish, decide
from llmjobs.choose.figure import draw
from llmjobs.choose.ready_to_run import commands as commands_for
from llmjobs.choose.results import Found, find_candidates
from llmjobs.errors import printable
from llmjobs.exit_codes import EXIT_NONE_FITS, EXIT_OK
from llmjobs.report.blocks import Block, Figure, Finding, Heading, Prose, Table
from llmjobs.report.pdf.document import Chapter, FrontPage, make_pdf
from llmjobs.report.text.shaping import isolated
from llmjobs.report.wording import listed, plural
from llmjobs.report.write.notes import escape
from llmjobs.report.write.save_figures import draw_figures
from llmjobs.terminal_text import table

Commands = Sequence[tuple[str, str]]


def choose(
    paths: Sequence[Path],
    wish: Wish,
    *,
    costs: Path | None = None,
    machine: str | None = None,
    where: Mapping[str, str] | None = None,
    name: str | None = None,
    any_prompt: bool = False,
    output: Path | None = None,
    as_json: bool = False,
) -> int:
    """Print which of the candidates in ``paths`` to run; return the exit code.

    Raises:
        DataError: nothing can be read or compared; the line says what to do.

    """
    found = find_candidates(
        paths,
        costs=costs,
        benchmarks=wish.benchmarks or None,
        machine=machine,
        where=where,
        name=name,
        any_prompt=any_prompt,
    )
    decision = decide(found.candidates, replace(wish, benchmarks=found.benchmarks))
    commands: Commands = ()
    if decision.winner:
        commands = commands_for(decision.winner.candidate, decision.wish.context)
    if as_json:
        print(as_text(decision, found, commands))
    else:
        print(shown(decision, found, commands))
    if output is not None:
        files = write(output, decision, found, commands)
        print(f"wrote {files[0]} and {plural(len(files) - 1, 'file')} beside it", file=sys.stderr)
    return EXIT_OK if decision.winner else EXIT_NONE_FITS


def as_text(decision: Decision, found: Found, commands: Commands) -> str:
    """The answer as JSON."""
    return json.dumps(to_json(decision, found, commands), indent=2, ensure_ascii=False)


def shown(decision: Decision, found: Found, commands: Commands) -> str:
    """The answer as text for a terminal."""
    parts = lines_of(decision, found)
    lines = [answer(decision)]
    lines += [line for heading, part in parts if not heading for line in part]
    lines += ["", *_table(evidence(decision))]
    for heading, part in parts:
        if heading:
            lines += ["", f"{heading}:", *(f"- {line}" for line in part)]
    for title, text in commands:
        lines += ["", f"{title}:", *(f"  {line}" for line in text.splitlines())]
    return "\n".join(map(printable, lines))


def _table(block: Table) -> list[str]:
    rows = [[column.title for column in block.columns], *block.rows]
    return [*table(rows), *([block.note] if block.note else [])]


# The files of `--output`: a PDF, notes, JSON and the figure.


def write(output: Path, decision: Decision, found: Found, commands: Commands) -> list[Path]:
    """Write the answer to ``output``, a folder or the name of a PDF, and everything else beside it.

    Raises:
        RunFolderError: the folder cannot be written.

    """
    pdf = output if output.suffix.lower() == ".pdf" else output / "choice.pdf"
    with file_operations.clear_errors(pdf):
        file_operations.make_folder(pdf.parent)
    names = [one.label for one in decision.judged]
    with isolated(names):
        blocks = _figures(decision)
        drawings = draw_figures(blocks, pdf.parent / "figures")
        files = {
            pdf.with_suffix(".json"): f"{as_text(decision, found, commands)}\n",
            pdf.with_suffix(".md"): notes(decision, found, commands, blocks),
        }
        for path, text in files.items():
            file_operations.write_whole(path, text.encode("utf-8", "replace"))
        pages = make_pdf(_front(decision, found, blocks), _chapters(decision, found, commands), drawings)
        file_operations.write_whole(pdf, pages)
    return [pdf, *files, *(pdf.parent / "figures" / f"{name}.{kind}" for name in drawings for kind in ("pdf", "png"))]


def _figures(decision: Decision) -> list[Figure]:
    if not any(one.score for one in decision.judged):
        return []
    caption = (
        f"Accuracy on {listed(decision.wish.benchmarks)} with its 95% interval, against memory and decode speed."
        " Ringed: the chosen candidate. Filled: not told apart from the best. Grey: ruled out, or (diamond) not judged."
        " Shaded: what a limit rules out."
    )
    return [Figure("choice", caption, partial(draw, decision))]


def _front(decision: Decision, found: Found, figures: Sequence[Figure]) -> FrontPage:
    lines = [line for heading, part in lines_of(decision, found) if not heading for line in part]
    findings = [Finding("→", answer(decision), 1, alarm=decision.winner is None)]
    findings += [Finding("", line, 0) for line in lines]
    where = f"measured on {found.machine}" if found.machine else "the machine is not recorded"
    counted = f"{plural(len(decision.judged), 'candidate')} on {plural(questions(decision), 'question')}"
    warning = "Partial: a study was not finished when this was decided." if found.partial else ""
    return FrontPage("Which model to run", [f"{counted} · {where}"], findings, figures, warning)


def _chapters(decision: Decision, found: Found, commands: Commands) -> list[Chapter]:
    blocks: list[Block] = [evidence(decision)]
    for heading, part in lines_of(decision, found):
        if heading:
            blocks += [Heading(heading), *(Prose(line) for line in part)]
    chapters = [Chapter("evidence", "Evidence", blocks)]
    if commands:
        run: list[Block] = []
        for title, text in commands:
            run += [Heading(title), *(Prose(line) for line in text.splitlines() if line)]
        chapters.append(Chapter("run", "Ready to run", run))
    return chapters


def notes(decision: Decision, found: Found, commands: Commands, figures: Sequence[Figure]) -> str:
    """The answer as Markdown; text from data is escaped."""
    block = evidence(decision)
    parts = lines_of(decision, found)
    lines = ["# Which model to run", "", f"**{escape(answer(decision))}**"]
    for heading, part in parts:
        if not heading:
            lines += [item for line in part for item in ("", escape(line))]
    for figure in figures:
        lines += ["", f"![{escape(figure.caption)}](figures/{figure.name}.png)"]
    lines += ["", f"## {block.caption}", ""]
    lines.append(f"| {' | '.join(escape(column.title) for column in block.columns)} |")
    lines.append(f"|{'|'.join('---' if column.align == 'left' else '---:' for column in block.columns)}|")
    lines += [f"| {' | '.join(map(escape, row))} |" for row in block.rows]
    lines += ["", escape(block.note)]
    for heading, part in parts:
        if heading:
            lines += ["", f"## {heading}", "", *(f"- {escape(line)}" for line in part)]
    if commands:
        lines += ["", "## Ready to run"]
        for title, text in commands:
            lines += ["", escape(title) + ":", "", *(f"    {line}" for line in map(printable, text.splitlines()))]
    return "\n".join(lines) + "\n"
