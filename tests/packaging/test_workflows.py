"""The hosted CI runs the same script as everywhere else, with read-only rights."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_a_workflow_reads_only_unless_a_job_says_more(path):
    found = read(path)
    assert found["permissions"] == {"contents": "read"}
    assert all(job["runs-on"] and job["steps"] for job in found["jobs"].values())
    for job in found["jobs"].values():
        checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_ci_is_the_script_that_runs_here():
    found = read(ROOT / ".github" / "workflows" / "ci.yml")
    (job,) = found["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert {"push", "pull_request"} == set(found[True]), "YAML reads the key on as a truth value"
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for target in ("make setup", "make check", "make test", "-m slow"):
        assert target in commands
