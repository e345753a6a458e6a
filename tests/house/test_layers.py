"""Imports follow the contracts in pyproject.toml, and what has to start at once starts without torch."""

import subprocess
import sys

import pytest
from importlinter.cli import lint_imports

HEAVY = {"torch", "transformers", "bitsandbytes", "accelerate"}


def test_the_contracts_of_pyproject_hold(monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    monkeypatch.setattr("logging.config.dictConfig", lambda config: None)  # it would silence every logger made before
    assert lint_imports(no_cache=True) == 0


@pytest.mark.parametrize(
    "code",
    [
        "from llmjobs.manifest import load_manifest; load_manifest('demo')",
        "import llmjobs.make_report",
        "import llmjobs.cli",
    ],
)
def test_what_starts_at_once_imports_no_torch(code):
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert not set(run.stdout.split()) & HEAVY
