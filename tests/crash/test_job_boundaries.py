"""Every job dies at every file operation of a small run, again during the resume, and then equals an unbroken run."""

import os
import shutil
from random import Random

import pytest
from crash_jobs import differences, make_job, play, state_of
from faults import Fault, in_child

STRIDE = {"report": 5}
"""A report is made anew by every run, which takes seconds: of its file operations each this manyth is died at here,
and all of them are looked at from within one run (below)."""
TURNS = (0, 1) if os.environ.get("LLMJOBS_BOTH_TURNS") else (0,)
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("turn", TURNS)
def test_every_boundary_of_every_job(small, folder, turn):
    """By turns as a kill and as a loss of power; with ``LLMJOBS_BOTH_TURNS=1`` as the other one too."""
    job, expected, operations = small
    deaths, stride = 0, STRIDE.get(job.name, 1)
    for boundary in range(1, operations + 1, stride):
        results, rng = folder / str(boundary), Random(boundary)
        mode = ("kill", "power")[(boundary // stride + turn) % 2]
        deaths += job.run(results, Fault(boundary, mode, boundary)) < 0
        deaths += job.run(results, Fault(rng.randint(1, operations), mode, boundary)) < 0
        assert job.run(results, told=folder / "told") == 0, f"{boundary}: {(folder / 'told').read_text()}"
        assert differences(state_of(results), expected) == [], f"died at operation {boundary} of {operations}"
        shutil.rmtree(results)
    assert deaths > operations // stride, "each boundary was really reached"


def test_no_file_of_a_report_is_ever_half_of_a_new_one(folder):
    """A second report over a first one: before each file operation every file is as it was, or as it will be."""
    job = make_job("report", folder)
    results = folder / "report"
    assert job.run(results) == 0
    before = {path: path.read_bytes() + b"old" for path in results.rglob("*") if path.is_file()}
    for path, data in before.items():
        path.write_bytes(data)
    seen = folder / "seen"

    def child() -> int:
        play()
        wrong: list[str] = []

        def look() -> None:
            wrong.extend(path.name for path, data in before.items() if path.read_bytes() not in (data, data[:-3]))

        watch = Fault(0, before=look)
        watch.install()
        code = job.work(results)
        seen.write_text(f"{len(wrong)} of {watch.count}")
        return code

    assert in_child(child) == 0
    assert seen.read_text().startswith("0 of ") and int(seen.read_text().split()[-1]) > len(before)
