"""Journals: torn lines never survive, damage in the middle names file and line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjobs.errors import DataError, RunFolderError
from llmjobs.work.folder import RunFolder
from llmjobs.work.journal import Journal, encode, read_records
from llmjobs.work.lock import exclusive

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_record_is_one_line_and_comes_back(record):
    line = encode(record)
    assert line.count(b"\n") == 1
    assert json.loads(line) == record


def test_a_resume_cuts_what_was_not_saved(tmp_path):
    path = tmp_path / "records.jsonl"
    with Journal(path, 0) as journal:
        journal.append([{"a": 1}])
        size = journal.size
        journal.append([{"a": 2}, {"a": 3}])
    path.write_bytes(path.read_bytes() + '{"a":"ü'.encode()[:-1])
    with Journal(path, size) as journal:
        journal.append([{"a": 4}])
    assert read_records(path) == [{"a": 1}, {"a": 4}]


def test_every_torn_length_is_read_up_to_the_last_whole_line(tmp_path):
    path = tmp_path / "records.jsonl"
    whole = encode({"a": "ü日"}) + encode({"b": "🙂"})
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert len(read_records(path, allow_torn=True)) == whole[:length].count(b"\n")


def test_damage_in_the_middle_names_file_and_line(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(encode({"a": 1}) + b'{"a"\n' + encode({"a": 3}))
    with pytest.raises(DataError, match=r"records\.jsonl:2: not a complete JSON object"):
        read_records(path, allow_torn=True)


def test_a_journal_shorter_than_its_checkpoint_is_refused(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"{}\n")
    with pytest.raises(RunFolderError, match="3 bytes, but 9 were saved"):
        Journal(path, 9)


def test_a_link_out_of_the_results_is_refused(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    results = tmp_path / "results"
    results.mkdir()
    (results / "run").symlink_to(outside)
    with pytest.raises(RunFolderError, match="leads out"):
        RunFolder.create(results, "run")
    folder = RunFolder.create(results, "real")
    (folder.path / "eval").symlink_to(outside)
    with pytest.raises(RunFolderError, match="leads out"):
        folder.unit("eval/m/x")
    assert not any(outside.iterdir())


def test_moving_aside_keeps_every_old_run(tmp_path):
    folder = RunFolder.create(tmp_path, "run")
    assert folder.move_aside() is None
    for number in (1, 2):
        folder.write_json("a.json", {"n": number})
        assert folder.move_aside() == tmp_path / f"run.{number}"
    assert not any(folder.path.iterdir())


def test_a_second_process_is_told_who_is_first(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from llmjobs.work.lock import exclusive\n"
        "with exclusive(Path(sys.argv[1])): pass"
    )
    with exclusive(tmp_path / "run"):
        second = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True)
    assert "LockedError" in second.stderr
    assert "is working in this run" in second.stderr
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "run"]).returncode == 0
