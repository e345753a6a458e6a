"""Every job on a failing disk: one clear line, a non-zero exit code, nothing saved is lost, and it resumes later."""

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crash_jobs import differences, play, played_once, records_of, state_of, tell_to
from faults import Fault, in_child

from llmjobs.work import checkpoint

pytestmark = pytest.mark.slow

CODES = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
PLACES = 4
"""File operations of each job that fail, spread over its run; the toy job's test takes every third."""


def one_line(told: Path, *says: str) -> None:
    """The last line reports it, without a traceback before it."""
    text = told.read_text()
    last = text.strip().splitlines()[-1]
    assert "Traceback" not in text
    assert last.startswith("llmjobs: "), text
    for part in says:
        assert part in last, last


def saved_of(results: Path) -> dict[str, bytes]:
    """The records that a checkpoint covers; what was written after them is not yet saved."""
    found = {}
    for name, data in records_of(results).items():
        loaded = checkpoint.load((results / name).with_name("checkpoint.pkl"))
        found[name] = data[: loaded.state["records_bytes"]] if loaded else b""
    return found


def is_kept(records: dict[str, bytes], results: Path) -> bool:
    """Whether every record that was saved is still there."""
    now = records_of(results)
    return all(now.get(name, b"").startswith(data) for name, data in records.items())


def test_an_operation_that_fails(small, folder):
    job, expected, operations = small
    for place in range(PLACES):
        results, told = folder / str(place), folder / f"told-{place}"
        first = 1 + place * operations // PLACES
        job.run(results, Fault(max(first - 2, 1), "kill"))
        saved = saved_of(results)
        code = CODES[place % len(CODES)]
        assert job.run(results, Fault(1 + (operations - first) // 3, "error", errno=code), told) == 1, told.read_text()
        one_line(told, os.strerror(code), "and run the same command again")
        assert is_kept(saved, results)
        assert job.run(results) == 0
        assert differences(state_of(results), expected) == []


def test_a_folder_that_is_removed_on_the_way(small, folder):
    job, expected, operations = small
    results, told = folder / "r", folder / "told"

    def child() -> int:
        tell_to(told)
        play()
        watch = Fault(0)
        watch.before = lambda: shutil.rmtree(results) if watch.count == operations // 2 else None
        watch.install()
        code = job.work(results)
        sys.stderr.flush()
        return code

    assert in_child(child) == 1, told.read_text()
    one_line(told, "No such file or directory")
    assert job.run(results) == 0
    assert differences(state_of(results), expected) == []


def test_a_slow_disk_changes_nothing(small, folder):
    job, expected, _ = small

    def child() -> int:
        tell_to(None)
        play()
        Fault(0, before=lambda: time.sleep(0.004)).install()
        return job.work(folder / "r")

    assert in_child(child) == 0
    assert differences(state_of(folder / "r"), expected) == []


@pytest.fixture(scope="module")
def evaluation():
    with played_once("eval") as found:
        yield found


root_on_linux = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="mounting a small disk needs root on Linux"
)


@pytest.fixture
def mounted(tmp_path):
    """Mounts a small disk; returns a function that mounts it with other options."""
    disk = tmp_path / "disk"
    disk.mkdir()
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {tried.stderr.strip()}")

    def again(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)

    yield disk, again
    subprocess.run(["umount", disk], check=True)


@root_on_linux
@pytest.mark.parametrize("pages", [3, 8, 12, 15])
def test_eval_on_a_disk_that_is_full(evaluation, mounted, tmp_path, pages):
    """For real: a file system of so many free pages of 4 KiB, then one with room."""
    job, expected, _ = evaluation
    disk, remount = mounted
    told = tmp_path / "told"
    filler = disk / "filler"
    filler.write_bytes(b"x" * ((16 - pages) * 4096))
    assert job.run(disk / "r", told=told) == 1, told.read_text()
    one_line(told, "No space left on device")
    saved = saved_of(disk / "r")
    filler.unlink()
    remount("size=8m")
    assert is_kept(saved, disk / "r")
    assert job.run(disk / "r") == 0
    assert differences(state_of(disk / "r"), expected) == []


@root_on_linux
def test_eval_on_a_disk_that_is_read_only(evaluation, mounted, tmp_path):
    job, expected, operations = evaluation
    disk, remount = mounted
    told = tmp_path / "told"
    remount("size=8m")
    job.run(disk / "r", Fault(operations // 2, "kill"))
    saved = records_of(disk / "r")
    assert saved
    remount("size=8m,ro")
    assert job.run(disk / "r", told=told) == 1
    one_line(told, "Read-only file system")
    assert records_of(disk / "r") == saved
    remount("size=8m,rw")
    assert job.run(disk / "r") == 0
    assert differences(state_of(disk / "r"), expected) == []
