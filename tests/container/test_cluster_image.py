"""Three containers of the image on a Docker network are a Ray cluster, by hand and by compose; one is killed."""

import contextlib
import json
import os
import subprocess
import time

import pytest
from compose_here import compose
from test_image import docker, image, records_of, results, run  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow
NAME = f"llmjobs-cluster-{os.getpid()}"
STUDY = ("eval", "manifests/smoke.yaml", "--limit", "60")
SMALL = ("--shm-size", "256m")
STORE = "--object-store-memory=80000000"


@pytest.fixture(autouse=True)
def need_image():
    if not image():
        pytest.skip("no image here: make image-cpu")


@pytest.fixture
def cluster(results):  # noqa: F811 - the fixture
    """Names of the head and of two workers."""
    names = [f"{NAME}-{role}" for role in ("head", "one", "two")]
    docker("network", "create", NAME)
    try:
        for name in names:
            node = ("ray-head", "--num-cpus=0") if name == names[0] else ("ray-worker", names[0], "--num-cpus=1")
            options = ("-d", "--name", name, "--network", NAME, *SMALL, "-v", f"{results}:/app/results")
            docker("run", *options, image(), *node, STORE)
            if name == names[0]:
                wait_for(lambda: docker("exec", names[0], "ray", "health-check", check=False).returncode == 0)
        yield names
    finally:
        for name in names:
            docker("rm", "-f", name, check=False)
        docker("network", "rm", NAME, check=False)


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def records_seen(results):  # noqa: F811
    """Of workers and of the run, while units are moved from one to the other."""
    for path in results.rglob("records.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            yield path.read_bytes()


def test_a_worker_container_killed_midway(cluster, results, tmp_path):  # noqa: F811
    head, one, _ = cluster
    docker("exec", "-d", head, "llmjobs-entrypoint", *STUDY, "--ray", "auto")
    wait_for(lambda: sum(len(line) for line in records_seen(results)) > 60_000)
    docker("kill", one)
    wait_for(lambda: (results / "smoke/summary.json").exists())
    plain = tmp_path / "plain"
    plain.mkdir()
    run(plain, *STUDY)
    assert records_of(results) == records_of(plain)
    user = docker("exec", head, "id", "-u").stdout.strip()
    assert user == "0", "docker exec is root; the entrypoint is not"
    assert {p.lstat().st_uid for p in results.rglob("*")} == {p.lstat().st_uid for p in plain.rglob("*")}


def test_the_compose_file_starts_a_cluster(results, tmp_path):  # noqa: F811
    command, file = compose(tmp_path)
    environment = {**os.environ, "LLMJOBS_IMAGE": image(), "LLMJOBS_RESULTS": str(results), "LLMJOBS_SHM": "256m"}

    def say(*arguments):
        whole = [*command, "-p", NAME, "-f", file, *arguments]
        return subprocess.run(whole, check=True, capture_output=True, text=True, env=environment, timeout=300)

    try:
        say("up", "-d")
        say("exec", "-T", "head", "llmjobs-entrypoint", *STUDY, "--ray", "auto")
        assert len(json.loads((results / "smoke/cluster.json").read_text())["nodes"]) == 2
    finally:
        say("down", "-v")
    plain = tmp_path / "plain"
    plain.mkdir()
    run(plain, *STUDY)
    assert records_of(results) == records_of(plain)


def test_a_worker_without_a_head_says_what_it_needs():
    ended = docker("run", "--rm", image(), "ray-worker", check=False)
    assert ended.returncode == 1
    assert ended.stderr.strip() == "llmjobs: ray-worker needs the head's name: ray-worker HEAD[:PORT]"
