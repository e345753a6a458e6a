"""Malicious folders and names: whatever is in the results, nothing outside of them is written."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import ToyJob

from llmjobs.chat.store import ChatStore
from llmjobs.errors import LlmjobsError, RunFolderError
from llmjobs.work import checkpoint
from llmjobs.work.folder import RunFolder
from llmjobs.work.lock import exclusive
from llmjobs.work.run import run_job

SECRET = b"what was here before\n"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the results whose files must stay unchanged."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("file", "checkpoint.pkl", "records.jsonl", "unit.json"):
        (folder / name).write_bytes(SECRET)
    return folder


def untouched(outside: Path) -> bool:
    return {p.name: p.read_bytes() for p in outside.iterdir()} == dict.fromkeys(
        ("file", "checkpoint.pkl", "records.jsonl", "unit.json"), SECRET
    )


FILES = ("checkpoint.pkl", "checkpoint.pkl.tmp", "checkpoint.pkl.previous", "unit.json", "unit.json.tmp",
         "records.jsonl", "timings.jsonl", "error.json.tmp")  # fmt: skip


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to], ids=["symlink", "hardlink"])
@pytest.mark.parametrize("name", FILES)
def test_a_planted_link_is_not_written_through(
    tmp_path: Path, outside: Path, name: str, make: Callable[[Path, Path], None]
) -> None:
    results = tmp_path / "results"
    unit = results / "run" / "toy" / "unit-0"
    unit.mkdir(parents=True)
    make(unit / name, outside / "file")
    try:
        run_job(ToyJob(units=1), RunFolder.create(results, "run"))
    except RunFolderError as error:
        assert str(error).isprintable()
    assert untouched(outside)


@pytest.mark.parametrize("name", ["toy", "toy/unit-0"])
def test_a_folder_that_is_a_link_is_refused(tmp_path: Path, outside: Path, name: str) -> None:
    link = tmp_path / "results" / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(RunFolderError, match="through a link"):
        run_job(ToyJob(units=1), RunFolder.create(tmp_path / "results", "run"))
    assert untouched(outside)


def test_the_run_and_its_lock_that_are_links_are_refused(tmp_path: Path, outside: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "run").symlink_to(outside)
    with pytest.raises(RunFolderError, match="through a link"):
        RunFolder.create(results, "run")
    (results / ".other.lock").symlink_to(outside / "file")
    with pytest.raises(RunFolderError), exclusive(results / "other"):
        pass
    assert untouched(outside)


@pytest.mark.parametrize("relative", ["../up.json", "docs/../../up.json", "docs/x.json", "/tmp/up.json", "a\0b"])
def test_files_of_a_run_stay_in_it(tmp_path: Path, outside: Path, relative: str) -> None:
    folder = RunFolder.create(tmp_path / "results", "run")
    (folder.path / "docs").symlink_to(outside)
    with pytest.raises((RunFolderError, ValueError)):
        folder.write_json(relative, {})
    assert untouched(outside)
    assert not list(tmp_path.rglob("up.json")) and not Path("/tmp/up.json").exists()


def test_a_pipe_in_the_place_of_a_file_hangs_nothing(tmp_path: Path) -> None:
    unit = tmp_path / "results" / "run" / "toy" / "unit-0"
    unit.mkdir(parents=True)
    for name in ("checkpoint.pkl.tmp", "unit.json.tmp"):
        os.mkfifo(unit / name)
    assert run_job(ToyJob(units=1), RunFolder.create(tmp_path / "results", "run")).exit_code == 0
    (unit / "checkpoint.pkl.previous").unlink()
    os.mkfifo(unit / "checkpoint.pkl.previous")
    checkpoint.save(unit / "checkpoint.pkl", {"n": 1})
    assert checkpoint.load(unit / "checkpoint.pkl").state == {"n": 1}


NAMES = st.sampled_from(["..", ".", "", "/", "/tmp", "a/b", "../x", "a\0b", "x" * 300, "~", "a\nb", "con", "é", "-"])


@given(NAMES | st.text(max_size=20))
def test_any_name_of_a_run_stays_below_the_results(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    top = tmp_path_factory.mktemp("names")
    try:
        RunFolder.create(top / "results", name)
    except LlmjobsError as error:
        assert str(error).isprintable()
    assert {p.name for p in top.iterdir()} <= {"results"}
    assert all(len(p.relative_to(top).parts) <= 2 for p in top.rglob("*"))


@pytest.mark.parametrize("name", ["²", "٣", "001", "1e3", "-1", "x"])
def test_foreign_folders_among_conversations(tmp_path: Path, name: str) -> None:
    (tmp_path / "talk" / "chat" / name).mkdir(parents=True)
    store = ChatStore.create(tmp_path, "talk")
    assert store.number == (2 if name == "001" else 1)
    store.close()
