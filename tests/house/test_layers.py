"""Arrows between modules point downwards only, and torch stays where it belongs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "lib"
LAYERS = (
    ("commands", ("llmjobs.commands", "llmjobs.cli", "llmjobs.__main__", "llmjobs")),
    ("jobs", ("llmjobs.jobs", "llmjobs.api")),
    ("cluster", ("llmjobs.cluster",)),
    ("runner", ("llmjobs.runner",)),
    (
        "models",
        (
            "llmjobs.models",
            "llmjobs.scoring",
            "llmjobs.measuring",
            "llmjobs.chat.local",
            "llmjobs.demo.train",
            "llmjobs.demo.measure",
        ),
    ),
    ("manifest", ("llmjobs.manifest",)),
    ("content", ("llmjobs.benchmarks", "llmjobs.demo", "llmjobs.chat", "llmjobs.mtbench", "llmjobs.report")),
    (
        "ground",
        (
            "llmjobs.errors",
            "llmjobs.changed_prompts",
            "llmjobs.clocks",
            "llmjobs.environment",
            "llmjobs.library_warnings",
            "llmjobs.process_memory",
            "llmjobs.progress_bar",
            "llmjobs.prompt_format",
            "llmjobs.redaction",
            "llmjobs.scoring.requests",
            "llmjobs.hub",
            "llmjobs.runfolder",
            "llmjobs.statistics",
            "llmjobs.thinking",
        ),
    ),
)
TORCH = ("torch", "transformers", "bitsandbytes", "accelerate")
"""Heavy packages; only the models layer and the jobs above it may name them."""
FREE_OF_TORCH = ("commands", "cluster", "runner", "manifest", "content", "ground")


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((LIBRARY / "llmjobs").rglob("*.py")):
        parts = path.relative_to(LIBRARY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def height(module: str) -> int:
    """Index of a module's layer from the top; the longest matching prefix decides."""
    matches = [
        (len(prefix), at)
        for at, (_, prefixes) in enumerate(LAYERS)
        for prefix in prefixes
        if module == prefix or (prefix != "llmjobs" and module.startswith(f"{prefix}."))
    ]
    assert matches, f"{module} is in no layer: add it to LAYERS"
    return max(matches)[1]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import, in functions too; those for type checkers alone are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield node.lineno, whole if whole in MODULES else node.module


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_downwards(module):
    own = height(module)
    for line, target in imports(MODULES[module]):
        if target.split(".")[0] == "llmjobs" and target in MODULES and target != "llmjobs":
            above = height(target) < own
            assert not above, f"{module}:{line} imports {target}, which is above it ({LAYERS[height(target)][0]})"


@pytest.mark.parametrize("module", [m for m in MODULES if LAYERS[height(m)][0] in FREE_OF_TORCH])
def test_no_torch_above_the_models(module):
    for line, target in imports(MODULES[module]):
        assert target.split(".")[0] not in TORCH, f"{module}:{line} imports {target}"


def test_a_manifest_and_the_report_need_no_torch():
    code = (
        "import sys; from llmjobs.manifest import load_manifest; load_manifest('demo'); import llmjobs.report.job\n"
        "print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & set(TORCH)
