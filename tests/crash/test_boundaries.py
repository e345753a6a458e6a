"""Death at every file operation of a run, again during the resume, then a resume to the end: the result is the same."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "work"))
from faults import Fault, in_child
from toy import ToyJob, records_of

from llmjobs.errors import RunFolderError
from llmjobs.work import checkpoint, when_to_save
from llmjobs.work.folder import RunFolder
from llmjobs.work.run import run_job

SHAPE = {"units": 2, "steps": 3}


EVERY_STEP, TOGETHER = float("inf"), 1e-9
"""Each step is saved, or a unit's steps are saved at its end."""


def attempt(folder: Path, fault: Fault | None, share: float = EVERY_STEP) -> int:
    def work() -> int:
        when_to_save.SHARE_OF_TIME = share
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - the child ends here
        if fault:
            fault.install()
        return run_job(ToyJob(**SHAPE), RunFolder.create(folder.parent, folder.name)).exit_code

    return in_child(work)


def cursors_of(folder: Path) -> dict[str, dict]:
    """Every checkpoint without what is measured."""
    found = {str(p.relative_to(folder)): checkpoint.read(p) for p in sorted(folder.rglob("checkpoint.pkl"))}
    measured = ("real_s", "attempts", "timings_bytes", "timings_sha256", "saves")
    return {path: {k: v for k, v in state.items() if k not in measured} for path, state in found.items()}


@pytest.fixture(scope="module", autouse=True)
def every_step_is_saved():
    share, when_to_save.SHARE_OF_TIME = when_to_save.SHARE_OF_TIME, EVERY_STEP
    yield
    when_to_save.SHARE_OF_TIME = share


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, every_step_is_saved):
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    counter = Fault(0)
    counter.install()
    try:
        run_job(ToyJob(**SHAPE), RunFolder.create(folder.parent, folder.name))
    finally:
        counter.remove()
    return records_of(folder), cursors_of(folder), counter.count


def operations_of(folder: Path, share: float) -> int:
    note = folder.with_name("operations")
    counter = Fault(0, before=lambda: note.write_text(str(counter.count + 1)))
    assert attempt(folder, counter, share) == 0
    return int(note.read_text())


@pytest.mark.parametrize("share", [EVERY_STEP, TOGETHER], ids=["every-step", "together"])
@pytest.mark.parametrize("mode", ["kill", "power"])
def test_every_boundary(tmp_path, unbroken, mode, share):
    records, cursors, operations = unbroken
    if share == TOGETHER:
        operations = operations_of(tmp_path / "counted", share)
    deaths = 0
    for boundary in range(1, operations + 1):
        folder = tmp_path / f"{mode}-{boundary}"
        rng = Random(boundary)
        deaths += attempt(folder, Fault(boundary, mode, boundary), share) < 0
        deaths += attempt(folder, Fault(rng.randrange(1, operations), mode, boundary + 1), share) < 0
        assert attempt(folder, None, share) == 0, boundary
        assert records_of(folder) == records, boundary
        assert cursors_of(folder) == cursors, boundary
    assert deaths > operations, "each boundary was really reached"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_a_failing_disk_ends_in_one_line_and_a_resume_goes_on(tmp_path, unbroken, code):
    records, _, operations = unbroken
    for boundary in range(1, operations + 1, 3):
        folder = tmp_path / str(boundary)
        fault = Fault(boundary, "error", errno=code)
        fault.install()
        try:
            with pytest.raises(RunFolderError) as caught:
                run_job(ToyJob(**SHAPE), RunFolder.create(folder.parent, folder.name))
        finally:
            fault.remove()
        assert os.strerror(code) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert run_job(ToyJob(**SHAPE), RunFolder.create(folder.parent, folder.name)).exit_code == 0
        assert records_of(folder) == records


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting a small disk needs root on Linux")
def test_a_real_full_disk(tmp_path, unbroken):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        filler = disk / "filler"
        filler.write_bytes(b"x" * 44_000)
        with pytest.raises(RunFolderError, match="No space left on device"):
            run_job(ToyJob(**SHAPE), RunFolder.create(disk, "run"))
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        assert run_job(ToyJob(**SHAPE), RunFolder.create(disk, "run")).exit_code == 0
        assert records_of(disk / "run") == unbroken[0]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_removed_folder_is_one_line(tmp_path):
    import shutil

    folder = RunFolder.create(tmp_path, "run")
    with pytest.raises(RunFolderError, match="No such file"):
        run_job(ToyJob(), folder, lambda unit, records: shutil.rmtree(folder.path))
