"""Prints what is longer than the house likes, longest first: ``python tests/house/lengths.py``."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("lib", "jobs", "docker", "benchmarks", "tests")
FILE_LINES, FUNCTION_LINES = 600, 60
"""What a file and a function should stay within; a quarter more is the limit."""


def lengths() -> Iterator[tuple[str, int, int]]:
    """Where, lines, and the lines it should stay within, of every file and function."""
    for path in sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")):
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        yield name, text.count("\n"), FILE_LINES
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1, FUNCTION_LINES


if __name__ == "__main__":
    long = sorted((line for line in lengths() if line[1] > line[2]), key=lambda line: line[2] / line[1])
    for where, lines, allowed in long:
        print(f"{lines:5} lines, {allowed} are enough: {where}")
    print(f"{len(long)} longer than they should be")
