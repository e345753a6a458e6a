"""A child's result, its ends, and its times against the shell's own ``time``."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from llmjobs.machine.child import Ended, describe_end, last_line, oom_kills, out_of_memory, run_child, was_killed

HERE = {"PYTHONPATH": str(Path(__file__).parent)}


def child(**task) -> Ended:
    timeout_s = task.pop("timeout_s", None)
    under = task.pop("under", ())
    return run_child("measuring_child", task, timeout_s=timeout_s, under=under, environment=HERE)


def test_a_result_comes_back():
    ended = child(text="ä\n{")
    assert ended.result == {"got": {"text": "ä\n{"}}
    assert ended.exit_status == 0
    assert ended.phase == "acting"


def test_an_error_is_one_line():
    ended = child(**{"raise": "first\nsecond"})
    assert ended.result is None
    assert ended.error == "first second"
    assert describe_end(ended) == "failed during acting: first second"


@pytest.mark.parametrize(("name", "says"), [("SIGKILL", "was killed by SIGKILL"), ("SIGSEGV", "crashed with SIGSEGV")])
def test_a_death_is_told(name, says):
    ended = child(signal=name)
    assert describe_end(ended) == f"{says} during acting"
    assert was_killed(ended) == (name == "SIGKILL")


def test_the_line_of_a_kill_for_memory():
    ended = child(burn_s=0.4, signal="SIGKILL")
    assert 1 << 22 < ended.peak_bytes < 1 << 28
    assert "by SIGKILL, most likely because memory ran out during acting, with 0.0" in out_of_memory(ended, oom_kills())
    assert "by the kernel because memory ran out" in out_of_memory(ended, -1) or oom_kills() is None


def test_a_time_limit_is_no_kill_for_memory():
    ended = child(sleep_s=60, timeout_s=1)
    assert ended.timed_out and not was_killed(ended)
    assert describe_end(ended) == "took longer than its time limit during acting"


def test_a_child_ends_with_its_parent(tmp_path):
    """SIGKILL of the parent leaves no process behind."""
    code = """
        from pathlib import Path
        from llmjobs.machine import child
        child.tempfile.tempdir = {folder!r}
        child.run_child("measuring_child", {{"sleep_s": 60}}, environment={here!r})
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code.format(folder=str(tmp_path), here=HERE))], env=os.environ | HERE
    )
    pid = None
    deadline = time.monotonic() + 20
    while pid is None and time.monotonic() < deadline:
        told = [p.read_text() for p in tmp_path.glob("*/reports.jsonl")]
        pid = next(
            (int(line.split(":")[1].strip(" }")) for t in told for line in t.splitlines() if "pid" in line), None
        )
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pid is not None and not Path(f"/proc/{pid}").exists()


@pytest.mark.skipif(not Path("/usr/bin/time").exists(), reason="no /usr/bin/time here: apt-get install time")
def test_times_are_those_of_the_shells_time(tmp_path):
    """Real, user and system time of the same process, within 3 % (and the hundredth that ``time`` prints)."""
    file = tmp_path / "time"
    ended = child(burn_s=1.5, sleep_s=0.5, under=["/usr/bin/time", "-o", str(file), "-f", "%e %U %S"])
    real, user, system = map(float, file.read_text().split())
    assert ended.real_s == pytest.approx(real, rel=0.03, abs=0.011)
    assert ended.user_s == pytest.approx(user, rel=0.03, abs=0.011)
    assert ended.system_s == pytest.approx(system, rel=0.03, abs=0.011)
    assert ended.user_s + ended.system_s >= 1.5
    assert ended.real_s >= 2.0


def test_last_line():
    assert last_line("one\n\n two \n\n") == "two"
    assert last_line("") == "the process exited without reporting an error"
