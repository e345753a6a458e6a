"""The runner skips finished units, resumes interrupted ones, and reports failures."""

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from toy import ToyJob, records_of

sys.path.append(str(Path(__file__).parents[1] / "crash"))
from faults import in_child

from llmjobs.errors import FingerprintError, RunFolderError
from llmjobs.exit_codes import EXIT_RESUMABLE, EXIT_UNITS_FAILED
from llmjobs.work import checkpoint, when_to_save
from llmjobs.work.folder import RunFolder
from llmjobs.work.journal import read_records
from llmjobs.work.lock import exclusive
from llmjobs.work.run import run_job


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, "run")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = RunFolder.create(tmp_path_factory.mktemp("unbroken"), "run")
    assert run_job(ToyJob(), folder).exit_code == 0
    return records_of(folder.path)


def test_done_units_are_not_opened_again(folder, unbroken):
    run_job(ToyJob(), folder)
    again = ToyJob()
    outcome = run_job(again, folder)
    assert (outcome.done, outcome.units, again.opened, again.closed) == (3, 3, [], 1)
    assert records_of(folder.path) == unbroken


def test_a_failing_unit_does_not_stop_the_others(folder):
    job = ToyJob(names=["toy/a", "toy/broken", "toy/c"])
    outcome = run_job(job, folder)
    assert outcome.exit_code == EXIT_UNITS_FAILED
    assert outcome.failed == {"toy/broken": "unexpected error: this unit always fails (llmjobs -v shows the traceback)"}
    assert (folder.path / "toy/broken/error.json").exists()
    assert len(read_records(folder.path / "toy/c/records.jsonl")) == 18
    assert [name for name, _ in job.opened] == job.names


@pytest.mark.parametrize("at", ["while it runs", "when it is shown again"])
def test_a_reader_that_goes_away_fails_no_unit(folder, unbroken, at):
    """After ``--show | head``, the command ends, and no unit counts as failed."""

    def gone(*_):
        raise BrokenPipeError

    if at == "when it is shown again":
        run_job(ToyJob(), folder)
    with pytest.raises(BrokenPipeError):
        run_job(ToyJob(), folder, gone)
    assert not list(folder.path.rglob("error.json"))
    assert run_job(ToyJob(), folder).exit_code == 0
    assert records_of(folder.path) == unbroken


def test_another_setting_is_refused_by_name_before_anything_runs(folder):
    run_job(ToyJob(), folder)
    other = ToyJob(declared={"seed": 2})
    with pytest.raises(FingerprintError, match=r"seed was 1 and is now 2; .* --fresh"):
        run_job(other, folder)
    assert other.opened == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_the_step_and_saves(folder, unbroken, number):
    def send(unit, records):
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    for attempt in range(17):
        outcome = run_job(ToyJob(), folder, send)
        assert outcome.exit_code == EXIT_RESUMABLE, attempt
        assert outcome.stopped_by == signal.Signals(number).name
    run_job(ToyJob(), folder)
    assert records_of(folder.path) == unbroken
    assert signal.getsignal(number) is before


def test_sigkill_at_random_moments(tmp_path, unbroken):
    """In forks, so that a kill falls into the work and not into the start of a process.

    The job takes 0.9 s at the least, and three kills together leave it half a second.
    """
    rng, killed = random.Random(0), 0

    def child() -> int:
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        with exclusive(tmp_path / "run"):
            return run_job(ToyJob(pause_s=0.05), RunFolder.create(tmp_path, "run")).exit_code

    while True:
        seconds = 0.05 + rng.random() * 0.1 + 0.02 * killed
        if (code := in_child(child)) != -signal.SIGKILL:
            break
        killed += 1
    assert (code, killed >= 3) == (0, True)
    assert records_of(tmp_path / "run") == unbroken


@pytest.mark.parametrize("saving_s", [0.0, 0.02])
def test_saving_takes_a_hundredth_of_the_time(folder, unbroken, monkeypatch, saving_s):
    """Steps of a millisecond on a slow disk are saved together; what waits is saved when a signal comes."""
    saves, real = [], checkpoint.save

    def save(path, state):
        time.sleep(saving_s)
        saves.append(state["steps_done"])
        real(path, state)

    monkeypatch.setattr(checkpoint, "save", save)
    job = ToyJob(units=1, steps=40, pause_s=0.001)
    stops = iter([False] * 20 + [True])
    run_job(job, folder, lambda unit, records: next(stops) and os.kill(os.getpid(), signal.SIGTERM))
    assert saves[-1] == 21, "the signal saved what had waited"
    if saving_s:
        assert len(saves) < 5
    run_job(job, folder)
    assert saves[-1] == 40
    whole = RunFolder.create(folder.path.parent, "whole")
    run_job(ToyJob(units=1, steps=40), whole)
    assert records_of(folder.path) == records_of(whole.path)


def test_no_step_waits_longer_than_a_limit(folder, monkeypatch):
    monkeypatch.setattr(when_to_save, "MOST_WAIT_S", 0.1)
    monkeypatch.setattr(when_to_save, "SHARE_OF_TIME", 1e-9)
    sizes = []
    run_job(
        ToyJob(units=1, steps=12, pause_s=0.03),
        folder,
        lambda unit, records: sizes.append((folder.path / unit.path / "records.jsonl").stat().st_size),
    )
    assert 2 <= len(set(sizes)) < 12


def test_times_are_never_negative(folder, monkeypatch):
    """A clock that jumps back by a year at every look is asked nowhere."""
    now = iter(range(2_000_000_000, 0, -31_536_000 // 4))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    run_job(ToyJob(units=1), folder)
    state = checkpoint.load(folder.path / "toy/unit-0/checkpoint.pkl").state
    lines = read_records(folder.path / "toy/unit-0/timings.jsonl")
    assert 0 < state["real_s"] < 60
    assert all(value >= 0 for line in lines for name, value in line.items() if name.endswith("_s"))


def test_time_adds_up_over_attempts(folder):
    shown: list[object] = []

    def stop(unit, records):
        if new := [record for record in records if record not in shown]:  # a resumed unit shows its records again
            shown.extend(new)
            os.kill(os.getpid(), signal.SIGTERM)

    began = time.monotonic()
    while run_job(ToyJob(units=1, steps=3, pause_s=0.05), folder, stop).stopped_by:
        pass
    spent = time.monotonic() - began
    state = checkpoint.load(folder.path / "toy/unit-0/checkpoint.pkl").state
    assert 0.15 <= state["real_s"] <= spent
    assert state["attempts"] == 3


@pytest.mark.parametrize("damage", ["both-checkpoints", "torn-records", "previous-generation"])
def test_damage_is_made_good_from_what_is_left(folder, unbroken, caplog, damage):
    stops = iter([False] * 7 + [True])

    def send(unit, records):
        if next(stops):
            os.kill(os.getpid(), signal.SIGTERM)

    run_job(ToyJob(), folder, send)
    unit = folder.path / "toy/unit-1"
    assert (unit / "checkpoint.pkl").exists()
    if damage == "both-checkpoints":
        for name in ("checkpoint.pkl", "checkpoint.pkl.previous"):
            (unit / name).write_bytes(b"gone")
    elif damage == "torn-records":
        with (unit / "records.jsonl").open("ab") as stream:
            stream.write('{"a":"ü'.encode()[:-1])
    else:
        (unit / "checkpoint.pkl").write_bytes((unit / "checkpoint.pkl").read_bytes()[:-3])
    assert run_job(ToyJob(), folder).exit_code == 0
    assert records_of(folder.path) == unbroken
    assert ("continuing from" in caplog.text) == (damage != "torn-records")


def test_a_shortened_journal_is_refused(folder):
    run_job(ToyJob(units=1), folder, lambda unit, records: os.kill(os.getpid(), signal.SIGTERM))
    (folder.path / "toy/unit-0/records.jsonl").write_bytes(b"")
    with pytest.raises(RunFolderError, match="changed from outside"):
        run_job(ToyJob(units=1), folder)
