"""A toy job that reports its phase and stays there: ``signal_toy.py FOLDER PHASE SECONDS``."""

import hashlib
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from toy import ToyJob, ToyWork

from llmjobs import file_operations
from llmjobs.work import signals
from llmjobs.work.folder import RunFolder
from llmjobs.work.run import run_job


def say(phase: str) -> None:
    os.write(1, f"{phase}\n".encode())


class SlowWork(ToyWork):
    stepped = False

    def step(self, index):
        SlowWork.stepped = True
        if PHASE == "step":
            say("step")
            time.sleep(SECONDS)
        if PHASE == "stuck":  # one operation that no handler can interrupt, as a large matrix product
            say("stuck")
            hashlib.pbkdf2_hmac("sha512", b"x", b"y", int(SECONDS * 1e6))
        return super().step(index)


class SlowJob(ToyJob):
    @contextmanager
    def open(self, unit, saved):
        if PHASE == "loading":
            say("loading")
            time.sleep(SECONDS)
        yield SlowWork(unit, self.steps, 0)


def slow_fsync(stream) -> None:
    if SlowWork.stepped:
        say("writing")
        time.sleep(SECONDS)
    fsync(stream)


if __name__ == "__main__":
    target, PHASE, SECONDS = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    fsync = file_operations.fsync
    if PHASE == "writing":
        file_operations.fsync = slow_fsync
    signals.LAST_S = 1.0
    try:
        outcome = run_job(SlowJob(units=2, steps=2), RunFolder.create(target.parent, target.name))
    except signals.StopRequestedError:
        sys.exit(75)
    sys.exit(outcome.exit_code)
