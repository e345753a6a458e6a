"""One process at a time in a run, with the kernel's locks and without them; a clock is asked nowhere."""

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from llmjobs.errors import LockedError, RunFolderError
from llmjobs.work.journal import Journal, read_records
from llmjobs.work.lock import exclusive, lock_file

HOLD = (
    "import sys, time; from pathlib import Path; from llmjobs.work.lock import exclusive\n"
    "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def other(tmp_path):
    """Another process, which holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that knows no locks."""

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


def note(folder, **holder) -> None:
    lock_file(folder).write_text(json.dumps(holder))


def test_the_second_process_is_told_who_is_first(tmp_path, other):
    expected = rf"process {other.pid} on .* is working in this run"
    with pytest.raises(LockedError, match=expected), exclusive(tmp_path / "run"):
        pass


def test_the_lock_of_a_dead_process_is_no_lock(tmp_path, other, caplog):
    other.send_signal(signal.SIGKILL)
    other.wait()
    with exclusive(tmp_path / "run"):
        assert json.loads(lock_file(tmp_path / "run").read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}
    assert lock_file(tmp_path / "run").read_text() == ""
    assert caplog.text == ""


def test_without_locks_a_live_process_of_this_machine_is_still_refused(tmp_path, other, no_locks):
    with pytest.raises(LockedError, match=f"process {other.pid} on"), exclusive(tmp_path / "run"):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    with exclusive(tmp_path / "run"):
        pass


@pytest.mark.parametrize("locks", [True, False])
def test_another_machine_that_did_not_end_cleanly_is_a_warning(tmp_path, locks, request, caplog):
    """It may have been cut off (Colab, a spot machine), so the run must continue here."""
    if not locks:
        request.getfixturevalue("no_locks")
    note(tmp_path / "run", pid=1, host="elsewhere")
    with caplog.at_level(logging.WARNING), exclusive(tmp_path / "run"):
        pass
    assert "process 1 on elsewhere did not end this run cleanly; if it is still running, stop it" in caplog.text


@pytest.mark.parametrize("text", ["", "{", '{"pid": "x"}', "[]", "\0" * 900])
def test_a_damaged_note_is_no_lock(tmp_path, text):
    lock_file(tmp_path / "run").write_text(text)
    with exclusive(tmp_path / "run"):
        pass


def test_two_writers_that_no_lock_keeps_apart_one_stops_before_it_does_harm(tmp_path):
    """Over a shared folder without locks: whoever writes second sees that the file has grown."""
    path = tmp_path / "records.jsonl"
    with Journal(path, 0) as first:
        first.append([{"a": 1}])
        with Journal(path, first.size) as second:
            second.append([{"b": 1}])
            with pytest.raises(RunFolderError, match=r"has 16 bytes, but this process wrote 8"):
                first.append([{"a": 2}])
            second.append([{"b": 2}])
    assert read_records(path) == [{"a": 1}, {"b": 1}, {"b": 2}]


def test_a_removed_journal_is_noticed_at_the_next_write(tmp_path):
    path = tmp_path / "records.jsonl"
    with Journal(path, 0) as journal:
        journal.append([{"a": 1}])
        path.unlink()
        with pytest.raises(RunFolderError, match="No such file"):
            journal.append([{"a": 2}])


def test_a_clock_that_jumps_back_confuses_nothing(tmp_path, monkeypatch, other):
    """The lock knows no time; a lock file from the future is no other."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    os.utime(lock_file(tmp_path / "run"), (4e9, 4e9))
    with pytest.raises(LockedError), exclusive(tmp_path / "run"):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    with exclusive(tmp_path / "run"):
        pass
