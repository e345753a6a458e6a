"""Damage to a run's files is detected, reported, and repaired from the previous checkpoint or the records."""

import os
import re
import shutil
import signal

import pytest
from toy import ToyJob, records_of

from llmjobs.errors import DataError, FingerprintError
from llmjobs.work import checkpoint
from llmjobs.work.folder import RunFolder
from llmjobs.work.journal import read_records
from llmjobs.work.run import run_job

pytestmark = pytest.mark.usefixtures("every_step_is_saved")
UNIT = "toy/unit-0"
SHAPE = {"units": 1, "steps": 6}
BOTH = ("checkpoint.pkl", "checkpoint.pkl.previous")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = RunFolder.create(tmp_path_factory.mktemp("unbroken"), "run")
    run_job(ToyJob(**SHAPE), folder)
    return records_of(folder.path)


@pytest.fixture(scope="module")
def halfway(tmp_path_factory, every_step_is_saved):
    """A run that was stopped after four of six steps, and its checkpoint after each step."""
    folder, generations = RunFolder.create(tmp_path_factory.mktemp("halfway"), "run"), []

    def look(unit, records):
        generations.append((folder.path / UNIT / "checkpoint.pkl").read_bytes())
        if len(generations) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    run_job(ToyJob(**SHAPE), folder, look)
    return folder.path, generations


@pytest.fixture
def folder(halfway, tmp_path):
    shutil.copytree(halfway[0], tmp_path / "run")
    return RunFolder(tmp_path / "run")


def goes_on(folder, unbroken, caplog, *says: str) -> None:
    caplog.clear()
    assert run_job(ToyJob(**SHAPE), folder).exit_code == 0
    assert records_of(folder.path) == unbroken
    for part in says:
        assert part in caplog.text


def test_any_byte_flipped_and_any_length(halfway, unbroken, tmp_path, caplog):
    """Every eleventh here; the checkpoint's own tests take every byte and every length."""
    whole = (halfway[0] / UNIT / "checkpoint.pkl").read_bytes()
    damaged = [whole[:at] + bytes([whole[at] ^ 32]) + whole[at + 1 :] for at in range(0, len(whole), 11)]
    damaged += [whole[:length] for length in range(0, len(whole), 11)]
    for number, data in enumerate(damaged):
        path = tmp_path / str(number)
        shutil.copytree(halfway[0], path)
        (path / UNIT / "checkpoint.pkl").write_bytes(data)
        goes_on(RunFolder(path), unbroken, caplog, "continuing from checkpoint.pkl.previous")


def test_both_generations_damaged_the_records_serve(folder, unbroken, caplog):
    for name in BOTH:
        (folder.path / UNIT / name).write_bytes(b"")
    goes_on(folder, unbroken, caplog, "is empty or cut off; continuing from records.jsonl (3 steps)")


def test_both_of_another_version(folder, unbroken, caplog):
    for name in BOTH:
        path = folder.path / UNIT / name
        path.write_bytes(path.read_bytes().replace(b"checkpoint 1\n", b"checkpoint 7\n"))
    goes_on(folder, unbroken, caplog, "has version 7, but this llmjobs reads version 1; continuing from records.jsonl")


@pytest.mark.parametrize("state", [{}, {"declared": {"seed": 1}}, {"declared": 3, "steps_done": "x"}])
def test_a_whole_checkpoint_of_something_else(folder, unbroken, caplog, state):
    checkpoint.save(folder.path / UNIT / "checkpoint.pkl", state)
    goes_on(folder, unbroken, caplog, "is intact, but not the checkpoint of a unit; continuing from records.jsonl")


@pytest.mark.parametrize("steps", [1, 2])
def test_an_older_generation_is_noticed_and_serves(folder, halfway, unbroken, caplog, steps):
    (folder.path / UNIT / "checkpoint.pkl").write_bytes(halfway[1][steps - 1])
    says = f"is older than checkpoint.pkl.previous; continuing from its step {steps}"
    goes_on(folder, unbroken, caplog, says)


def test_a_death_between_records_and_checkpoint_is_nothing_to_talk_about(folder, halfway, unbroken, caplog):
    for name, generation in zip(BOTH, halfway[1][2:0:-1], strict=True):
        (folder.path / UNIT / name).write_bytes(generation)
    goes_on(folder, unbroken, caplog)
    assert "older" not in caplog.text


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_last_line_torn_anywhere_also_within_a_character(folder, unbroken, caplog, cut):
    """Without a usable checkpoint: the torn line is left out, its step is computed again."""
    for name in BOTH:
        (folder.path / UNIT / name).unlink()
        (folder.path / UNIT / name).write_bytes(b"x")
    records = folder.path / UNIT / "records.jsonl"
    line = '{"unit":"toy","text":"ü🙂🙂"'.encode()
    records.write_bytes(records.read_bytes() + line[:-cut])
    goes_on(folder, unbroken, caplog, "continuing from records.jsonl")


def test_a_damaged_line_in_the_middle_names_file_and_line(folder):
    for name in BOTH:
        (folder.path / UNIT / name).write_bytes(b"x")
    records = folder.path / UNIT / "records.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join([*lines[:2], b'{"torn\n', *lines[3:]]))
    with pytest.raises(DataError, match=r"records\.jsonl:3: not a complete JSON object; restore the file or run with"):
        run_job(ToyJob(**SHAPE), folder)
    with pytest.raises(DataError, match=r"records\.jsonl:3"):
        read_records(records)


def test_settings_are_compared_without_a_checkpoint_too(folder):
    for name in BOTH:
        (folder.path / UNIT / name).write_bytes(b"x")
    with pytest.raises(FingerprintError, match="seed was 1 and is now 2"):
        run_job(ToyJob(**SHAPE, declared={"seed": 2}), folder)


def test_a_field_within_a_field_is_named(tmp_path):
    folder = RunFolder.create(tmp_path, "run")
    run_job(ToyJob(declared={"questions": {"a": {"hash": 1}, "b": {"hash": 2}}}), folder)
    with pytest.raises(FingerprintError, match=r"questions\.b\.hash was 2 and is now 3; "):
        run_job(ToyJob(declared={"questions": {"a": {"hash": 1}, "b": {"hash": 3}}}), folder)


@pytest.mark.parametrize("step", ['"=1+1"', "1e400", "-3", "null", "[]", '"x"'])
def test_a_step_that_is_no_number_names_file_and_line(folder, step):
    for name in BOTH:
        (folder.path / UNIT / name).write_bytes(b"x")
    records = folder.path / UNIT / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join([lines[0], lines[1].replace('"step":0', f'"step":{step}'), *lines[2:]]))
    with pytest.raises(DataError, match=r"records\.jsonl:2: 'step' is .*, which cannot follow"):
        run_job(ToyJob(**SHAPE), folder)


@pytest.mark.parametrize("value", ['"=1+1"', "1e400", "-1e400", "null", "[]", "1" + "0" * 400])
def test_any_figure_in_the_timings_is_survived(folder, unbroken, caplog, value):
    for name in BOTH:
        (folder.path / UNIT / name).write_bytes(b"x")
    timings = folder.path / UNIT / "timings.jsonl"
    for name in ("real_s", "items", "attempt"):
        timings.write_text(re.sub(rf'"{name}":[0-9.]+', f'"{name}":{value}', timings.read_text()))
    goes_on(folder, unbroken, caplog, "continuing from records.jsonl")
