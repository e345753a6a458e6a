"""Signals in each phase of a job: once, twice, without anybody to send a second one, and ignored from the start."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy import ToyJob, records_of

from llmjobs.errors import LlmjobsError
from llmjobs.exit_codes import EXIT_RESUMABLE
from llmjobs.work.folder import RunFolder
from llmjobs.work.run import run_job
from llmjobs.work.signals import CAUGHT, grace_s

SCRIPT = Path(__file__).with_name("signal_toy.py")
PHASES = ("loading", "step", "writing")
SHAPE = {"units": 2, "steps": 2}


class Started:
    """The toy job in a separate process, in the requested phase."""

    def __init__(self, folder: Path, phase: str, seconds: float, **environment: str) -> None:
        command = [sys.executable, SCRIPT, folder, phase, str(seconds)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env={**os.environ, **environment}, **streams)
        assert self.process.stdout.readline().strip() == phase
        self.began = time.monotonic()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, float]:
        """Exit code, output, and seconds since it reached its phase."""
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said, time.monotonic() - self.began


@pytest.fixture
def start():
    """Starts toy jobs, and ends those that a failed test leaves."""
    started = []

    def make(*arguments, **environment) -> Started:
        started.append(Started(*arguments, **environment))
        return started[-1]

    yield make
    for job in started:
        job.process.kill()
        job.process.communicate()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = RunFolder.create(tmp_path_factory.mktemp("unbroken"), "run")
    run_job(ToyJob(**SHAPE), folder)
    return records_of(folder.path)


def goes_on(folder: Path, unbroken) -> None:
    assert run_job(ToyJob(**SHAPE), RunFolder.create(folder.parent, folder.name)).exit_code == 0
    assert records_of(folder) == unbroken


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("number", CAUGHT)
def test_once(start, tmp_path, unbroken, phase, number):
    job = start(tmp_path / "run", phase, 0.4)
    job.send(number)
    code, said, _ = job.end()
    assert code == EXIT_RESUMABLE, said
    assert "Traceback" not in said
    if phase == "step":
        assert f"{signal.Signals(number).name}: finishing the current step" in said
        assert (tmp_path / "run/toy/unit-0/records.jsonl").stat().st_size > 0, "the step was finished"
    goes_on(tmp_path / "run", unbroken)


@pytest.mark.parametrize("phase", ["step", "writing"])
@pytest.mark.parametrize("number", CAUGHT)
def test_twice(start, tmp_path, unbroken, phase, number):
    """While loading the first one ends it at once already."""
    job = start(tmp_path / "run", phase, 20)
    job.send(number)
    time.sleep(0.1)
    job.send(number)
    code, said, took_s = job.end()
    assert (code, "Traceback" in said) == (EXIT_RESUMABLE, False), said
    assert took_s < 10, "it did not wait for the step"
    goes_on(tmp_path / "run", unbroken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("phase", ["step", "writing"])
def test_a_long_step_is_given_up_in_time(start, tmp_path, unbroken, phase, number):
    """A spot instance's 30 seconds, made shorter: nobody sends a second signal before the kill."""
    job = start(tmp_path / "run", phase, 60, LLMJOBS_GRACE_S="0.3")
    job.send(number)
    code, said, took_s = job.end()
    assert code == EXIT_RESUMABLE, said
    assert 0.3 <= took_s < 10
    assert "at most 0.3 s" in said
    goes_on(tmp_path / "run", unbroken)


def test_an_operation_that_no_handler_reaches_is_bounded_too(start, tmp_path, unbroken):
    job = start(tmp_path / "run", "stuck", 200, LLMJOBS_GRACE_S="0.3")
    time.sleep(1)  # so that it is within the operation, where Python's own handler waits
    job.send(signal.SIGTERM)
    code, said, took_s = job.end()
    assert code == EXIT_RESUMABLE, said
    assert 2.3 <= took_s < 30
    goes_on(tmp_path / "run", unbroken)


def test_a_person_at_the_keyboard_has_all_the_time(start, tmp_path, unbroken):
    job = start(tmp_path / "run", "step", 1.5, LLMJOBS_GRACE_S="0.1")
    job.send(signal.SIGINT)
    code, said, took_s = job.end()
    assert (code, took_s > 1) == (EXIT_RESUMABLE, True), said
    assert "at most" not in said


def test_nohup_stays_nohup(start, tmp_path, unbroken):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        job = start(tmp_path / "run", "step", 0.2)
    finally:
        signal.signal(signal.SIGHUP, before)
    job.send(signal.SIGHUP)
    code, said, _ = job.end()
    assert code == 0, said
    assert records_of(tmp_path / "run") == unbroken


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "1e9"])
def test_a_grace_that_is_no_number_of_seconds(monkeypatch, text):
    monkeypatch.setenv("LLMJOBS_GRACE_S", text)
    with pytest.raises(LlmjobsError, match="LLMJOBS_GRACE_S: .* is not a number of seconds above 0; the default is 25"):
        grace_s()
