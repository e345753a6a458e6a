"""Draws ``architecture.svg``: ``python docs/make_architecture.py`` (part of ``make docs``)."""

from html import escape
from pathlib import Path

LAYERS = (
    ("commands", "one thin click command a job; one line for every error"),
    ("jobs", "a manifest's section → ordered units, and the work of each"),
    ("runner", "units into a run folder: resume, signals, progress, failures"),
    ("models", "load, quantize, describe, score, generate; torch lives here alone"),
    ("manifest", "read, overridden and validated in one place"),
    ("content", "benchmarks, demo, chat strategies, judge prompts: text in, verdicts out"),
    ("ground", "run folder (JSONL, checkpoint, lock), hub, statistics, clocks, errors"),
)
WIDTH, WIDE, NARROW = 760, 720, 560
TOP, HEIGHT, STEP, LEFT = 16, 42, 62, 20
RIGHT = LEFT + WIDE - 120
STYLE = (
    "rect{fill:#eef3f8;stroke:#3b6a96}.report{fill:#f6efe2;stroke:#a97b2f}text{fill:#1d2b38}"
    ".small{font-size:12px;fill:#4a5a68}.arrow{stroke:#3b6a96;stroke-width:1.5;fill:none}"
)
MARKER = (
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#3b6a96"/></marker>'
)


def box(x: int, y: int, width: int, height: int, kind: str = "plain") -> str:
    """A rounded frame."""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" class="{kind}"/>'


def text(x: int, y: int, words: str, kind: str = "plain") -> str:
    """Words that begin at a point."""
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(words)}</text>'


def arrow(x: int, top: int, bottom: int) -> str:
    """Something above uses something below."""
    return f'<path class="arrow" marker-end="url(#tip)" d="M{x} {top}V{bottom - 1}"/>'


def draw() -> str:
    """The layers from top to bottom, the report beside them."""
    parts, last = [], len(LAYERS) - 1
    for at, (name, what) in enumerate(LAYERS):
        y, width = TOP + at * STEP, WIDE if at in (0, last) else NARROW
        parts += [box(LEFT, y, width, HEIGHT), text(36, y + 26, name), text(150, y + 26, what, "small")]
        if at < last:
            parts.append(arrow(LEFT + NARROW // 2, y + HEIGHT, y + STEP))
    top, bottom = TOP + 4 * STEP, TOP + 5 * STEP + HEIGHT
    parts += [
        box(RIGHT, top, 120, bottom - top, "report"),
        text(RIGHT + 30, top + 46, "report"),
        text(RIGHT + 13, top + 67, "reads run folders,", "small"),
        text(RIGHT + 13, top + 83, "writes the PDF", "small"),
        arrow(RIGHT + 60, TOP + HEIGHT, top),
        arrow(RIGHT + 60, bottom, TOP + last * STEP),
    ]
    size = f"0 0 {WIDTH} {TOP * 2 + last * STEP + HEIGHT}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" font-family="sans-serif" font-size="15">'
    body = "\n  ".join([f"<style>{STYLE}</style>", f"<defs>{MARKER}</defs>", *parts])
    return f"{head}\n  {body}\n</svg>\n"


if __name__ == "__main__":
    Path(__file__).with_name("architecture.svg").write_text(draw(), encoding="utf-8")
