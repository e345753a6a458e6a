"""Help texts stay what they were, come at once, and import nothing heavy; a changed one is made anew by make golden."""

import json
import subprocess
import sys
from pathlib import Path

from make_help_golden import FOLDER

HOUSE = Path(__file__).parent
ALLOWED = {"click", "llmjobs"}
MODULES = 200
TIMES_CLICK = 6
WATCHED = """
import contextlib, io, json, sys, time
before, began = set(sys.modules), time.process_time()
import click
click_s = time.process_time() - began
from llmjobs.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
print(json.dumps({"ratio": (time.process_time() - began) / click_s, "modules": sorted(set(sys.modules) - before)}))
"""
"""CPU time as a multiple of what importing click takes in the same process: a busy machine slows both down alike."""


def test_help_is_as_it_was():
    known = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.txt")}
    # in a process of its own: click keeps the help option of whichever test called a command first
    code = "import json; from make_help_golden import help_texts; print(json.dumps(help_texts()))"
    run = subprocess.run([sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == known, "read what changed; if it is meant: make golden"


def test_help_is_quick_and_imports_nothing_heavy():
    command = [sys.executable, "-c", WATCHED]
    runs = [json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    modules = runs[0]["modules"]
    assert {name.partition(".")[0] for name in modules} - sys.stdlib_module_names <= ALLOWED
    assert len(modules) < MODULES, modules
    assert min(run["ratio"] for run in runs) < TIMES_CLICK, "--help computes something before it prints"
