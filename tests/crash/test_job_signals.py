"""Every job handles signals at any moment: it saves, prints at most one line, exits with 75, and resumes."""

import os
import signal
import time
from pathlib import Path
from random import Random

import pytest
from crash_jobs import SmallJob, differences, play, state_of, tell_to
from faults import Fault

from llmjobs.exit_codes import EXIT_RESUMABLE

pytestmark = pytest.mark.slow

INTERRUPTED = 130
"""Ctrl-C where no unit is at work: while a report is made, or a summary."""


def signalled(job: SmallJob, results: Path, told: Path, at: int, number: int, *, twice: bool) -> int:
    """Run the job in a child that gets a signal at file operation ``at``, which is slow enough for a second one."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code = 70
    try:
        tell_to(told)
        play()
        fault = Fault(0)

        def strike() -> None:
            if fault.count == at:
                for _ in range(1 + twice):
                    os.kill(os.getpid(), number)
                    time.sleep(0.01)

        fault.before = strike
        fault.install()
        code = job.work(results)
    finally:
        os._exit(code)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_at_any_moment(small, folder, number):
    """At file operations spread over the run: before, between, within and after the steps; once and twice."""
    job, expected, operations = small
    rng = Random(f"{job.name}{number}")
    ended = []
    for attempt in range(5):
        results, told = folder / str(attempt), folder / f"told-{attempt}"
        at = rng.randrange(operations * attempt // 5, operations * (attempt + 1) // 5)
        code = signalled(job, results, told, at, number, twice=attempt % 2 == 1)
        text = told.read_text()
        assert code in (EXIT_RESUMABLE, INTERRUPTED if number == signal.SIGINT else EXIT_RESUMABLE, 0), text
        assert "Traceback" not in text
        ended.append(code)
        assert job.run(results, told=told) == 0, told.read_text()
        assert differences(state_of(results), expected) == []
    assert set(ended) - {0}, "some of them came while it was at work"
