"""Draws ``architecture.svg``: ``python docs/make_architecture.py`` (part of ``make docs``)."""

from html import escape
from pathlib import Path

LAYERS = (
    ("cli, api", "the command line and the Python interface; one line for every error"),
    ("choose, make_report, prepare", "which candidate to run; the report; plan and doctor"),
    ("converse, matrix, mtbench", "one folder per feature: tasks, job, summary, report chapter"),
    ("eval, chat, report", "accuracy; the chat agent; read results, compute, write the PDF"),
    (
        "run_study, cluster, statistics",
        "a job from its folder to its summary; units on a Ray cluster; intervals and tests",
    ),
    ("work, fetch", "the run folder: resume, signals, failures; downloads"),
    ("engines", "one protocol: load, score, generate, chat, measure; transformers/ uses torch"),
    ("machine", "child processes, energy, CPU counters"),
    ("manifest, benchmarks", "a study, validated in one place; prompts and scoring"),
    (
        "demo, hub, calls, memory, errors",
        "bundled models, the hub, calls to servers, peak memory, one-line errors",
    ),
)
WIDTH, BOX = 800, 760
TOP, HEIGHT, STEP, LEFT = 16, 40, 56, 20
STYLE = (
    "rect{fill:#eef3f8;stroke:#3b6a96}text{fill:#1d2b38}.small{font-size:12px;fill:#4a5a68}"
    ".arrow{stroke:#3b6a96;stroke-width:1.5;fill:none}"
)
MARKER = (
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#3b6a96"/></marker>'
)


def box(x: int, y: int) -> str:
    """A rounded frame."""
    return f'<rect x="{x}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="4"/>'


def text(x: int, y: int, words: str, kind: str = "plain") -> str:
    """Words that begin at a point."""
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(words)}</text>'


def arrow(x: int, top: int, bottom: int) -> str:
    """A layer uses the ones below it."""
    return f'<path class="arrow" marker-end="url(#tip)" d="M{x} {top}V{bottom - 1}"/>'


def draw() -> str:
    """The layers from top to bottom."""
    parts, last = [], len(LAYERS) - 1
    for at, (name, what) in enumerate(LAYERS):
        y = TOP + at * STEP
        parts += [box(LEFT, y), text(36, y + 25, name), text(270, y + 25, what, "small")]
        if at < last:
            parts.append(arrow(LEFT + BOX // 2, y + HEIGHT, y + STEP))
    size = f"0 0 {WIDTH} {TOP * 2 + last * STEP + HEIGHT}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" font-family="sans-serif" font-size="15">'
    body = "\n  ".join([f"<style>{STYLE}</style>", f"<defs>{MARKER}</defs>", *parts])
    return f"{head}\n  {body}\n</svg>\n"


if __name__ == "__main__":
    Path(__file__).with_name("architecture.svg").write_text(draw(), encoding="utf-8")
