"""``llmjobs choose RESULTS``: read, decide, print and write the answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llmjobs.choose.answer import answer, evidence, lines_of, to_json
from llmjobs.choose.decide import Decision, Wish, decide
from llmjobs.choose.results import Found, find_candidates
from llmjobs.errors import printable
from llmjobs.exit_codes import EXIT_NONE_FITS, EXIT_OK
from llmjobs.report.blocks import Table
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
    if as_json:
        print(json.dumps(to_json(decision, found, commands), indent=2, ensure_ascii=False))
    else:
        print(shown(decision, found, commands))
    return EXIT_OK if decision.winner else EXIT_NONE_FITS


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
