"""A kill by the kernel for memory is distinguished from a person's, and only the first changes anything."""

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from toy import ToyJob, ToyWork, records_of

sys.path.append(str(Path(__file__).parents[1] / "crash"))
from faults import in_child

from llmjobs.work import checkpoint, memory_kills
from llmjobs.work.folder import RunFolder
from llmjobs.work.journal import read_records
from llmjobs.work.run import run_job

pytestmark = pytest.mark.usefixtures("every_step_is_saved")
UNIT = "toy/unit-0"


class DyingWork(ToyWork):
    dies_at: int | None = None

    def step(self, index):
        if index == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(index)


class DyingJob(ToyJob):
    """Dies in a step, and stores what the runner passed when it opened the unit."""

    def __init__(self, dies_at=None):
        super().__init__(units=1, steps=4)
        self.dies_at, self.told = dies_at, None

    @contextmanager
    def open(self, unit, saved):
        self.told = saved
        work = DyingWork(unit, self.steps, 0)
        work.dies_at = self.dies_at
        yield work


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """Run the job with a given kernel count; return what was passed to it (None: it died)."""

    def run(count, dies_at=None, boot="one", group="group", host=None):
        """``count`` is the control group's; ``host`` the machine's."""
        own = None if count is None else (group, count)
        monkeypatch.setattr(memory_kills, "own_oom_kills", lambda: own)
        monkeypatch.setattr(memory_kills, "oom_kills", lambda: host)
        monkeypatch.setattr(memory_kills, "boot_id", lambda: boot)
        folder, job = RunFolder.create(tmp_path, "run"), DyingJob(dies_at)
        if dies_at is not None:
            assert in_child(lambda: run_job(job, folder).exit_code) == -signal.SIGKILL
            return None
        assert run_job(job, folder).exit_code == 0
        return job.told

    return run


def state(tmp_path) -> dict:
    return checkpoint.read(tmp_path / "run" / UNIT / "checkpoint.pkl")


def test_a_persons_kill_is_none_for_memory(attempt, tmp_path):
    attempt(5, dies_at=2)
    told = attempt(5)
    assert (told.steps_done, told.killed_for_memory) == (2, False)
    assert (state(tmp_path)["memory_kills"], state(tmp_path)["running"]) == (0, None)


def test_a_kill_that_the_kernel_counted_is_told_and_recorded(attempt, tmp_path, caplog):
    attempt(5, dies_at=2)
    told = attempt(6)
    assert (told.steps_done, told.killed_for_memory) == (2, True)
    assert f"{UNIT}: the last attempt ran out of memory" in caplog.text
    assert state(tmp_path)["memory_kills"] == 1
    opened = [line for line in read_records(tmp_path / "run" / UNIT / "timings.jsonl") if line["phase"] == "open"]
    assert [line.get("memory_kills") for line in opened] == [None, 1]


def test_another_process_of_the_machine_that_the_kernel_killed_changes_nothing(attempt, tmp_path):
    """A busy machine, a person's kills: the control group's own count has not grown."""
    for host in (5, 6, 7):
        attempt(2, dies_at=2, host=host)
    assert attempt(2, host=8).killed_for_memory is False
    assert state(tmp_path)["memory_kills"] == 0


def test_the_machines_count_alone_tells_at_the_second_end_in_a_row(attempt):
    attempt(None, dies_at=2, host=5)
    attempt(None, dies_at=2, host=6)
    assert attempt(None, host=7).killed_for_memory is True


def test_in_a_container_started_anew_the_machines_count_serves(attempt):
    attempt(1, dies_at=2, group="first", host=5)
    attempt(0, dies_at=2, group="second", host=6)
    assert attempt(0, group="third", host=7).killed_for_memory is True


def test_one_end_while_the_machine_killed_somebody_is_none_for_memory(attempt):
    attempt(None, dies_at=2, host=5)
    assert attempt(None, host=6).killed_for_memory is False


def test_after_a_start_of_the_machine_the_count_means_nothing(attempt):
    attempt(0, dies_at=2, boot="one")
    assert attempt(3, boot="two").killed_for_memory is False


def test_an_end_in_sight_is_no_kill(attempt, tmp_path, monkeypatch):
    """Stopped by a signal at 5; the kernel kills another process before the next start."""
    monkeypatch.setattr(memory_kills, "own_oom_kills", lambda: ("group", 5))
    folder = RunFolder.create(tmp_path, "run")
    run_job(DyingJob(), folder, lambda unit, records: os.kill(os.getpid(), signal.SIGTERM))
    assert state(tmp_path)["running"] is None
    assert attempt(9).killed_for_memory is False


def test_where_the_kernel_does_not_count_a_row_of_ends_in_one_step_tells(attempt, tmp_path):
    told = []
    for _ in range(memory_kills.MOST_VANISHED):
        attempt(None, dies_at=2)
        told.append(state(tmp_path)["vanished"])
    assert told == [0, 1, 2, 3, 4]
    assert attempt(None).killed_for_memory is True


def test_where_the_kernel_does_not_count_a_finished_step_begins_a_new_row(attempt, tmp_path):
    for step in (0, 0, 0, 1, 1, 1, 2, 2, 2):
        attempt(None, dies_at=step)
    assert attempt(None).killed_for_memory is False


def test_the_records_are_those_of_an_unbroken_run(attempt, tmp_path):
    attempt(5, dies_at=1)
    attempt(6, dies_at=3)
    attempt(6)
    run_job(DyingJob(), RunFolder.create(tmp_path, "whole"))
    assert records_of(tmp_path / "run") == records_of(tmp_path / "whole")
