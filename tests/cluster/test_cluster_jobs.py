"""Every job on three Ray nodes: the same records as a plain run, byte for byte, also with a node lost on the way."""

import json
import subprocess
import sys
import time

import pytest
from local_cluster import LocalCluster

from llmjobs.work.journal import read_records

pytestmark = pytest.mark.slow
MTBENCH = ("mtbench", "mtbench", "--set", "models=[llmjobs/demo-tiny, llmjobs/demo-narrow]")
CONVERSE = ("converse", "chat", "--set", "models=[llmjobs/demo-tiny]", "--set", "converse.contexts=[128]")
MATRIX = ("matrix", "matrix", "--set", "models=[llmjobs/demo-tiny]", "--set", "matrix.repetitions=1")
JOBS = {
    "mtbench": (*MTBENCH, "--set", "mtbench.baseline=demo-tiny"),
    "converse": (
        *CONVERSE,
        "--set",
        "converse.strategies=[none, full]",
        "--limit",
        "2",
        "--set",
        "converse.threads=1",
    ),
    "matrix": (*MATRIX, "--set", "matrix.quantizations=[none]", "--set", "matrix.threads=[1]"),
}


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster("a", "b", "c") as found:
        yield found


def start(results, *arguments):
    command = [sys.executable, "-m", "llmjobs", *arguments, "--results", results]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out + err


def records_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("records.jsonl"))}


def nodes_of(folder):
    """Nodes that opened units; a unit that stays with the command (an endpoint, the judge by rule) names none."""
    lines = [line for path in sorted(folder.rglob("timings.jsonl")) for line in read_records(path)]
    return [line["node"] for line in lines if line["phase"] == "open" and "node" in line]


def test_smoke_with_a_node_lost(cluster, tmp_path):
    there = start(tmp_path / "ray", "eval", "smoke", "--ray", cluster.address)
    deadline = time.monotonic() + 600
    while sum(len(path.read_bytes()) for path in (tmp_path / "ray").rglob("records.jsonl")) < 50_000:
        assert time.monotonic() < deadline and there.poll() is None, there.communicate()
        time.sleep(0.05)
    cluster.remove("a")
    said = end(there)
    cluster.add("a")
    end(start(tmp_path / "plain", "eval", "smoke"))
    assert records_of(tmp_path / "ray") == records_of(tmp_path / "plain")
    ray, plain = (json.loads((tmp_path / name / "smoke/summary.json").read_text())["eval"] for name in ("ray", "plain"))
    assert [one["benchmarks"] for one in ray["models"]] == [one["benchmarks"] for one in plain["models"]]
    assert ray["status"] == "complete"
    assert {"b", "c"} <= set(nodes_of(tmp_path / "ray"))
    assert "lost its worker" in said or ": lost: " in said
    for name in ("docs", "eval/demo-base/model.json"):
        assert (tmp_path / "ray/smoke" / name).exists()


@pytest.mark.parametrize("job", JOBS)
def test_the_other_jobs(cluster, tmp_path, job):
    said = end(start(tmp_path / "ray", *JOBS[job], "--ray", cluster.address))
    end(start(tmp_path / "plain", *JOBS[job]))
    records = records_of(tmp_path / "ray")
    assert records and records == records_of(tmp_path / "plain"), said
    nodes = set(nodes_of(tmp_path / "ray"))
    assert nodes and nodes <= {"a", "b", "c"}
