"""On a cluster, what talks to an endpoint stays with the driver: one count of requests, one key, no node sees it."""

import os
import subprocess
import sys

import pytest
from mtbench_runs import records_of
from mtbench_stand_in import stand_in

from llmjobs.exit_codes import EXIT_UNITS_FAILED
from llmjobs.work.journal import read_records

pytest.importorskip("ray", reason="ray is not installed: no cluster")
pytestmark = pytest.mark.slow
KEY = "key-of-the-driver"


def run(study, results, *more):
    command = [sys.executable, "-m", "llmjobs", "mtbench", study, "--results", results, *more]
    environment = {**os.environ, "OPENAI_API_KEY": KEY}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    # the tiny model's second turns do not fit into its context, and say so
    assert ended.returncode == EXIT_UNITS_FAILED and "the conversation is full" in ended.stdout + ended.stderr


def nodes_of(results):
    """Unit → the node that ran it; None for the driver itself."""
    paths = sorted(results.rglob("timings.jsonl"))
    return {path.parent.relative_to(results).parts[1:]: read_records(path)[0].get("node") for path in paths}


def test_endpoints_stay_with_the_driver(study, tmp_path):
    with stand_in() as server:
        models = [{"id": "agent", "endpoint": server.url}, "llmjobs/demo-tiny"]
        manifest = study(server.url, models=models)
        run(manifest, tmp_path / "plain")
        alone = len(server.requests)
        run(manifest, tmp_path / "ray", "--ray", "local")
        assert len(server.requests) == 2 * alone
    assert records_of(tmp_path / "ray") and records_of(tmp_path / "ray") == records_of(tmp_path / "plain")
    nodes = nodes_of(tmp_path / "ray")
    away = [path for path, node in nodes.items() if node]
    assert len(nodes) > 3 and [path[-1] for path in away] == ["demo-tiny"] and "answers" in away[0], nodes
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
