"""Help texts stay what they were, come at once, and import nothing heavy; a changed one is made anew by make golden."""

import json
import subprocess
import sys
from pathlib import Path

from lengths import lengths
from make_help_golden import FOLDER

HOUSE = Path(__file__).parent
HEAVY = {"torch", "transformers", "pydantic", "numpy", "matplotlib", "datasets"}
TIMED = """
import contextlib, io, sys, time
began = time.perf_counter()
from llmjobs.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
print(time.perf_counter() - began, *sorted(sys.modules))
"""


def test_help_is_as_it_was():
    known = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.txt")}
    # in a process of its own: click keeps the help option of whichever test called a command first
    code = "import json; from make_help_golden import help_texts; print(json.dumps(help_texts()))"
    run = subprocess.run([sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == known, "read what changed; if it is meant: make golden"


def test_help_is_quick_and_imports_nothing_heavy():
    command = [sys.executable, "-c", TIMED]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(5)]
    assert not set(runs[0]) & HEAVY
    assert min(float(run[0]) for run in runs) < 0.3


def test_nothing_is_much_too_long():
    over = [f"{where}: {lines} lines" for where, lines, allowed in lengths() if lines > 1.25 * allowed]
    assert not over, f"divide it by what it does: {', '.join(over)}"
