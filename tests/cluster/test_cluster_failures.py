"""Workers, nodes and drivers that die on a real Ray cluster: every unit ends exactly once, with the same records."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from local_cluster import LocalCluster

from llmjobs.errors import LlmjobsError
from llmjobs.exit_codes import EXIT_OK, EXIT_RESUMABLE, EXIT_UNITS_FAILED
from llmjobs.work import checkpoint, leases
from llmjobs.work.folder import RunFolder
from llmjobs.work.journal import read_records
from llmjobs.work.run import run_job

pytest.importorskip("ray", reason="ray is not installed: no cluster")
from cluster_toy import STEPS, ClusterToy  # noqa: E402

pytestmark = pytest.mark.slow
TOY = Path(__file__).with_name("cluster_toy.py")
UNITS = [f"toy/{group}/unit-{n}" for group in ("red", "green", "blue") for n in range(4)]


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster("a", "b") as found:
        yield found


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def drive(cluster, run, *units):
    command = [sys.executable, TOY, cluster.address, run, *units]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(driver):
    out, err = driver.communicate(timeout=120)
    assert driver.returncode in (EXIT_OK, EXIT_UNITS_FAILED), err
    return json.loads(out.splitlines()[-1]), err


def unbroken(tmp_path, *units):
    """Records of a plain run, in this process."""
    folder = RunFolder.create(tmp_path / "plain", "run")
    run_job(ClusterToy(folder, units), folder)
    return records_of(folder.path, units)


def records_of(run, units):
    return {unit: (run / unit / "records.jsonl").read_bytes() for unit in units}


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def files_of(run, name):
    """Every such file below a run; again if a folder was taken over or removed while it was searched."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            return list(run.rglob(name))


def progress(run):
    """Steps that workers have saved so far, in the run and in leases."""
    total = 0
    for path in files_of(run, "checkpoint.pkl"):
        with contextlib.suppress(checkpoint.DamagedCheckpointError):  # it has just been taken over, or replaced
            total += checkpoint.read(path)["steps_done"]
    return total


def opened(run):
    """Every attempt that is known: unit's folder and opening line."""
    found = []
    for path in files_of(run, "timings.jsonl"):
        with contextlib.suppress(LlmjobsError):
            lines = read_records(path, allow_torn=True)
            found += [(path.parent, line) for line in lines if line["phase"] == "open"]
    return found


def nodes(run):
    return {line["node"] for _, line in opened(run)}


def workers():
    """Processes of this cluster's workers that are in a unit."""
    return [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[0].startswith("ray::Worker.run")]


def check_whole(run, units, expected):
    assert records_of(run, units) == expected
    for unit in units:
        assert checkpoint.load(run / unit / "checkpoint.pkl").state["done"]
        steps = [line["step"] for line in read_records(run / unit / "timings.jsonl") if line["phase"] == "run"]
        assert steps == list(range(STEPS)), unit
    assert not (run / ".leases").exists()


def test_a_worker_killed_a_node_lost_a_node_added(cluster, run, tmp_path):
    units = [f"{unit}-slow" for unit in UNITS]
    driver = drive(cluster, run, *units)
    wait_for(lambda: progress(run) > 3)
    cluster.add("c")
    wait_for(lambda: "c" in nodes(run))
    wait_for(workers)[0].kill()
    wait_for(lambda: any(line["attempt"] > 1 for _, line in opened(run)) and nodes(run) == {"a", "b", "c"})
    lost = wait_for(lambda: [line["node"] for path, line in opened(run) if leases.LEASES in path.parts])[-1]
    cluster.remove(lost)
    outcome, err = ended(driver)
    cluster.add(lost)
    cluster.remove("c")
    assert outcome == {"units": 12, "done": 12, "failed": {}}, err
    assert err.count("lost its worker") + err.count(": lost: ") >= 2
    check_whole(run, units, unbroken(tmp_path, *units))
    assert nodes(run) == json.loads((run / "cluster.json").read_text())["nodes"].keys() == {"a", "b", "c"}


def test_a_node_thought_dead_comes_back(cluster, run, tmp_path):
    """It keeps writing to its old folder, and none of that reaches the run."""
    unit = "toy/red/slow"
    driver = drive(cluster, run, unit)
    wait_for(lambda: progress(run) >= 2)
    (old, line), *_ = opened(run)
    cluster.freeze(line["node"])
    wait_for(lambda: any(again["attempt"] > 1 for _, again in opened(run)))
    cluster.thaw(line["node"])
    outcome, err = ended(driver)
    assert outcome["done"] == 1, err
    assert "lost its worker" in err or ": lost: " in err
    check_whole(run, [unit], unbroken(tmp_path, unit))
    assert [again["node"] for _, again in opened(run)] == [line["node"], {"a": "b", "b": "a"}[line["node"]]]
    assert not old.exists()
    cluster.remove(line["node"])
    cluster.add(line["node"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_driver_ends_and_the_same_command_goes_on(cluster, run, tmp_path, number):
    driver = drive(cluster, run, *UNITS)
    wait_for(lambda: progress(run) > 20)
    os.kill(driver.pid, number)
    driver.communicate(timeout=60)
    assert driver.returncode == (EXIT_RESUMABLE if number == signal.SIGTERM else -number)
    assert (run / ".leases").exists() == (number == signal.SIGKILL)
    before = {path: path.read_bytes() for path in (run / "toy").rglob("timings.jsonl")}
    outcome, err = ended(drive(cluster, run, *UNITS))
    assert outcome["done"] == 12, err
    check_whole(run, UNITS, unbroken(tmp_path, *UNITS))
    assert before
    for path, timings in before.items():
        assert path.read_bytes().startswith(timings), "what was done is not done again"


def test_a_unit_that_fails_three_times_is_left_and_the_rest_goes_on(cluster, run, tmp_path):
    units = ["toy/red/deadly", "toy/red/a", "toy/green/broken", "toy/green/b", "toy/blue/stumbling"]
    outcome, err = ended(drive(cluster, run, *units))
    good = [units[1], units[3], units[4]]
    assert outcome["done"] == 3, err
    assert outcome["failed"].keys() == {"toy/red/deadly", "toy/green/broken"}
    assert outcome["failed"]["toy/green/broken"].startswith(
        "unexpected error: this unit always fails (llmjobs -v shows the traceback) (on "
    )
    assert "lost its worker on " in outcome["failed"]["toy/red/deadly"]
    assert err.count("toy/red/deadly: lost its worker") == 3
    for unit, line in outcome["failed"].items():
        assert json.loads((run / unit / "error.json").read_text()) == {"unit": unit, "error": line}
        assert checkpoint.load(run / unit / "checkpoint.pkl").state["steps_done"] == 2
    check_whole(run, good, unbroken(tmp_path, *good))


def test_units_that_need_others_and_units_that_stay(cluster, run, tmp_path):
    units = ["first/red/a", "first/here/b", "second/green/c", "second/here/d"]
    outcome, err = ended(drive(cluster, run, *units))
    assert outcome["done"] == 4, err
    check_whole(run, units, unbroken(tmp_path, *units))
    placed = {unit: "node" in read_records(run / unit / "timings.jsonl")[0] for unit in units}
    assert placed == dict(zip(units, (True, False, True, False), strict=True))


def test_a_cluster_that_is_gone_is_one_line(run, tmp_path):
    """Its only machine dies; the run continues without Ray and ends with the records of an unbroken run."""
    units = ["toy/slow/0", "toy/slow/1"]
    lost = LocalCluster("only")
    try:
        driver = drive(lost, run, *units)
        wait_for(lambda: progress(run))
        for process in reversed(psutil.Process(lost.process.pid).children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, err = driver.communicate(timeout=60)
    finally:
        lost.process.kill()
        lost.process.stdin.close()
        lost.process.stdout.close()
        lost.process.wait()
    assert driver.returncode == 1
    last = err.strip().splitlines()[-1]
    assert last.startswith("llmjobs: --ray ") and "lost the cluster" in last and "run the same command again" in last
    folder = RunFolder(run)
    leases.collect(folder)
    assert run_job(ClusterToy(folder, units), folder).exit_code == EXIT_OK
    assert records_of(run, units) == unbroken(tmp_path, *units)
