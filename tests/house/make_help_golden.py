"""Writes ``golden/help/*.txt`` anew: ``python tests/house/make_help_golden.py``. Read the difference."""

import contextlib
import io
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "golden" / "help"


def help_texts() -> dict[str, str]:
    """The help of the program and of each command, by file name."""
    from llmjobs.cli import COMMANDS

    return {"llmjobs": help_of()} | {name: help_of(name) for name in COMMANDS}


def help_of(*command: str) -> str:
    """What ``llmjobs COMMAND --help`` prints on a terminal of 100 columns."""
    from llmjobs.cli import group

    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        group.main([*command, "--help"], "llmjobs", terminal_width=100)
    return out.getvalue()


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = help_texts()
    for path in FOLDER.glob("*.txt"):
        if path.stem not in texts:
            path.unlink()
    for name, text in texts.items():
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")
    print(f"{len(texts)} help texts in {FOLDER}", file=sys.stderr)
