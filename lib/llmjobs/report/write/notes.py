"""Write ``notes.md``: answers to common questions about a study, with its figures."""

import re
from collections.abc import Sequence

from llmjobs.report.blocks import Block, Figure, Finding
from llmjobs.report.study import Study
from llmjobs.report.text.shaping import END, FIRST, parts_of

TIMINGS = "How do the timings compare?"
PATTERNED = "Are the mistakes patterned or random?"
SAME = "Do the models miss the same questions?"
HISTORY = "What do context and history change?"
MACHINES = "Colab against laptop: what does the machine change?"
QUALITY = "How good are the answers, according to a judge?"

MISSING = {
    TIMINGS: "No times are recorded in these results. `llmjobs eval` and `llmjobs matrix` record them.",
    PATTERNED: "No answers are recorded in these results.",
    SAME: "These results contain no two models that answered the same questions.",
    HISTORY: ("These results contain no conversations. `llmjobs converse` records them, with and without history."),
    MACHINES: (
        "No model was run on two machines. To compare machines, pass both run folders: "
        "`llmjobs report results/laptop results/colab`."
    ),
    QUALITY: "These results contain no judged answers. `llmjobs mtbench` records them.",
}


def notes_text(
    study: Study,
    title: str,
    findings: Sequence[Finding],
    answers: Sequence[tuple[str, str]],
    blocks: Sequence[Block],
) -> str:
    """Return the notes as Markdown; text from data is escaped."""
    lines = [
        f"# {escape(title)}",
        "",
        "Written by `llmjobs report` from the recorded answers. Every number is also in `report.pdf`.",
    ]
    if study.partial:
        lines += ["", "**Partial:** the study was not finished when these notes were written."]
    lines += ["", "## In short", "", *(f"- {escape(finding.sentence)}" for finding in findings)]
    for question, missing in MISSING.items():
        found = [text for asked, text in answers if asked == question]
        lines += ["", f"## {question}", ""]
        lines += [item for text in found for item in (escape(text), "")][:-1] if found else [missing]
    figures = {block.name: block for block in blocks if isinstance(block, Figure)}
    lines += ["", "## Figures", ""]
    for figure in figures.values():
        lines += [f"![{escape(figure.caption)}](figures/{figure.name}.png)", ""]
    if study.notices:
        lines += ["## What to know about the input", ""]
        lines += [f"- {escape(str(notice))}" for notice in study.notices]
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    """Return plain text as Markdown that shows exactly that text."""
    parts = [_escaped(part) for part in parts_of(text)]
    return "".join(f"{FIRST}{part}{END}" if at % 2 else part for at, part in enumerate(parts))


def _escaped(text: str) -> str:
    flat = "".join(c if c.isprintable() else " " if c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
    return re.sub(r"([\\`*_\[\]<>|#!~&])", r"\\\1", flat)
