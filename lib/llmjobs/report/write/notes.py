"""Writes ``notes.md``: the questions that such a study is set to answer, from its own figures."""

import re
from collections.abc import Sequence

from llmjobs.report.blocks import Block, Figure, Finding
from llmjobs.report.study import Study

TIMINGS = "How do the timings compare?"
PATTERNED = "Are the mistakes patterned or random?"
SAME = "Do the models miss the same questions?"
HISTORY = "What do context and history change?"
MACHINES = "Colab against laptop: what does the machine change?"
QUALITY = "How good are the answers as a judge rates them?"

MISSING = {
    TIMINGS: "No times are recorded in these results. `llmjobs eval` and `llmjobs matrix` record them.",
    PATTERNED: "No answers are recorded in these results.",
    SAME: "There are no two models on the same questions in these results.",
    HISTORY: (
        "There are no conversations in these results. `llmjobs converse` records them, with history and without."
    ),
    MACHINES: (
        "No model was run on two machines here. Give this report both run folders: "
        "`llmjobs report results/laptop results/colab`."
    ),
    QUALITY: "There are no judged answers in these results. `llmjobs mtbench` records them.",
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
        "Made from recorded answers by `llmjobs report`; every figure stands in `report.pdf`.",
    ]
    if study.partial:
        lines += ["", "**Partial:** the study was not finished when this was made."]
    lines += ["", "## In short", "", *(f"- {escape(finding.sentence)}" for finding in findings)]
    for question, missing in MISSING.items():
        told = [text for asked, text in answers if asked == question]
        lines += ["", f"## {question}", ""]
        lines += [item for text in told for item in (escape(text), "")][:-1] if told else [missing]
    figures = {block.name: block for block in blocks if isinstance(block, Figure)}
    lines += ["", "## Figures", ""]
    for figure in figures.values():
        lines += [f"![{escape(figure.caption)}](figures/{figure.name}.png)", ""]
    if study.notices:
        lines += ["## What to know about the input", ""]
        lines += [f"- {escape(str(notice))}" for notice in study.notices]
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    """Return plain text as Markdown that shows just that text."""
    flat = "".join(c if c.isprintable() else " " if c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
    return re.sub(r"([\\`*_\[\]<>|#!~&])", r"\\\1", flat)
