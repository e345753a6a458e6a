"""The CPU image: works as the README says, gives the owner's files, survives a kill, keeps no secret."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
IMAGE = "llmjobs:cpu"
HARD = (
    "--read-only",
    "--tmpfs",
    "/tmp",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--network",
    "none",
)


def docker(*arguments: object, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    command = ["docker", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=check, **options)  # type: ignore[call-overload]


@pytest.fixture(scope="module", autouse=True)
def image():
    if not shutil.which("docker") or docker("image", "inspect", IMAGE, check=False).returncode:
        pytest.skip(f"no image {IMAGE} here: make image-cpu")


def mounted(folder: Path) -> tuple[str, ...]:
    return ("-v", f"{folder}:/app/results")


def records_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("records.jsonl"))}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """The README's command; Docker makes the folder."""
    results = tmp_path_factory.mktemp("image") / "results"
    docker("run", "--rm", *mounted(results), IMAGE, "eval", "manifests/smoke.yaml")
    return results


def test_size():
    size = int(docker("image", "inspect", IMAGE, "--format", "{{.Size}}").stdout)
    assert size < 2_000_000_000, f"{size / 1e9:.2f} GB"


def test_the_job_is_never_root(unbroken):
    assert {p.stat().st_uid for p in unbroken.rglob("*") if p.is_file()} == {10001}


def test_same_records_as_outside(unbroken, tmp_path):
    from llmjobs.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["eval", "smoke", "--results", str(tmp_path)])
    assert ended.value.code == 0
    assert records_of(tmp_path) == records_of(unbroken)


def test_the_owner_keeps_the_files(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    os.chown(results, 12345, 12345)
    docker("run", "--rm", *mounted(results), IMAGE, "eval", "manifests/smoke.yaml", "--limit", "2")
    assert {p.stat().st_uid for p in results.rglob("*")} == {12345}


@pytest.mark.parametrize("user", [None, "23456:23456"])
def test_hardened_and_without_network(unbroken, tmp_path, user):
    results = tmp_path / "results"
    results.mkdir()
    if user:
        os.chown(results, 23456, 23456)
    who = ("--user", user) if user else ()
    docker("run", "--rm", *HARD, *who, *mounted(results), IMAGE, "eval", "manifests/smoke.yaml")
    assert records_of(results) == records_of(unbroken)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    results = tmp_path / "results"
    results.mkdir(mode=0o755)
    run = docker(
        "run", "--rm", "--user", "23456", *mounted(results), IMAGE, "eval", "manifests/smoke.yaml", check=False
    )
    assert run.returncode == 1
    assert "cannot be written by user 23456; add --user" in run.stderr
    assert run.stderr.count("\n") == 1


def wait_for_records(results: Path, name: str) -> None:
    deadline = time.monotonic() + 120
    while not any(p.stat().st_size for p in results.rglob("records.jsonl")):
        assert time.monotonic() < deadline, docker("logs", name, check=False).stderr
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_killed_midway_it_goes_on(unbroken, tmp_path, how):
    results, name = tmp_path / "results", f"llmjobs-test-{how}-{os.getpid()}"
    docker("run", "-d", "--name", name, *mounted(results), IMAGE, "eval", "manifests/smoke.yaml")
    try:
        wait_for_records(results, name)
        docker(how, name)
        code = json.loads(docker("inspect", name, "--format", "{{json .State.ExitCode}}").stdout)
    finally:
        docker("rm", "-f", name)
    assert code == (137 if how == "kill" else 75)
    assert records_of(results) != records_of(unbroken)
    docker("run", "--rm", *mounted(results), IMAGE, "eval", "manifests/smoke.yaml")
    assert records_of(results) == records_of(unbroken)


def test_no_secret_and_no_cache_in_a_layer():
    history = docker("history", "--no-trunc", IMAGE).stdout
    assert "HF_TOKEN" not in history
    listing = docker("run", "--rm", "--entrypoint", "/usr/bin/find", IMAGE, "/root", "/cache", "/tmp", "-type", "f")
    assert listing.stdout.split() in ([], ["/root/.bashrc", "/root/.profile"], ["/root/.profile", "/root/.bashrc"])
