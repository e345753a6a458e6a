"""Hours of units in seconds: resident memory and open files do not grow with their number; a planted leak is seen."""

import ctypes
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from toy import ToyJob

sys.path.append(str(Path(__file__).parents[1] / "crash"))
from crash_jobs import fast_folder, tell_to
from faults import in_child

from llmjobs.work.folder import RunFolder
from llmjobs.work.run import run_job

UNITS, FIRST = 1600, 400
"""As many as 28 models on MMLU's 57 subjects; the figures of the first ones are left out: allocators settle."""
MOST_BYTES_A_UNIT = 2000


class WatchedJob(ToyJob):
    """Looks at its process before each unit; ``leak`` is done at each unit."""

    def __init__(self, leak):
        super().__init__(units=UNITS, steps=2, declared={"seed": 1, "text": "x" * 200})
        self.leak, self.process, self.figures = leak, psutil.Process(), []

    @contextmanager
    def open(self, unit, saved):
        self.leak()
        self.figures.append((self.process.memory_info().rss, self.process.num_fds()))
        with super().open(unit, saved) as work:
            yield work


def growth(tmp_path, leak) -> tuple[float, int]:
    """Bytes per unit and open files, from the first units to the last, in a separate process."""
    import shutil

    folder, told = fast_folder(), tmp_path / "figures"

    def child() -> int:
        tell_to(None)
        with suppress(AttributeError):  # other libraries than glibc
            ctypes.CDLL(None).malloc_trim(0)  # what earlier tests freed would hide a leak
        job = WatchedJob(leak)
        code = run_job(job, RunFolder.create(folder, "run")).exit_code
        (rss, files), (last_rss, last_files) = job.figures[FIRST], job.figures[-1]
        told.write_text(f"{(last_rss - rss) / (UNITS - FIRST)} {last_files - files}")
        return code

    try:
        assert in_child(child) == 0
    finally:
        shutil.rmtree(folder)
    per_unit, files = told.read_text().split()
    return float(per_unit), int(files)


def test_nothing_grows_with_the_number_of_units(tmp_path):
    bytes_a_unit, files = growth(tmp_path, lambda: None)
    assert bytes_a_unit < MOST_BYTES_A_UNIT
    assert files == 0


@pytest.mark.parametrize("what", ["memory", "files"])
def test_a_planted_leak_is_seen(tmp_path, what):
    kept = []
    leaks = {"memory": lambda: kept.append(os.urandom(20_000)), "files": lambda: os.dup(2)}
    bytes_a_unit, files = growth(tmp_path, leaks[what])
    assert (bytes_a_unit > MOST_BYTES_A_UNIT) == (what == "memory")
    assert (files > 0) == (what == "files")
