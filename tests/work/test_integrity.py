"""What was saved is what is read: a file of a unit that something else changed is refused, also in finished units."""

import errno
import json
import os
import re

import pytest
from toy import ToyJob, records_of

from llmjobs import file_operations
from llmjobs.errors import FingerprintError, RunFolderError
from llmjobs.manifest import load_manifest
from llmjobs.report.read.run_folder import read_run_folder
from llmjobs.work import checkpoint
from llmjobs.work.folder import RunFolder, read_object
from llmjobs.work.integrity import check_run, check_unit
from llmjobs.work.run import open_run, run_job
from llmjobs.work.unit_progress import progress_of

pytestmark = pytest.mark.usefixtures("every_step_is_saved")
UNIT = "toy/unit-0"
SHAPE = {"units": 2, "steps": 4}


def cut(data: bytes) -> bytes:
    return data[: data.rindex(b"\n", 0, -1) + 1]


def edited(data: bytes) -> bytes:
    """One digit of the first value, as another: as long as before, and valid JSON."""
    return re.sub(rb'("(?:value|real_s)":0\.)(\d)', lambda m: m[1] + (b"1" if m[2] != b"1" else b"2"), data, count=1)


CHANGES = {
    "cut": cut,
    "emptied": lambda data: b"",
    "a line twice": lambda data: data + data[data.rindex(b"\n", 0, -1) + 1 :],
    "all of it twice": lambda data: data + data,
    "edited to the same length": edited,
    "lines swapped": lambda data: b"".join(sorted(data.splitlines(keepends=True), reverse=True)),
}


@pytest.fixture
def finished(tmp_path):
    folder = RunFolder.create(tmp_path, "run")
    assert run_job(ToyJob(**SHAPE), folder).exit_code == 0
    return folder


def forget_digests(folder: RunFolder) -> None:
    """Make the run one of a version that kept none."""
    for file in folder.path.rglob("checkpoint.pkl*"):
        state = checkpoint.read(file)
        older = {key: value for key, value in state.items() if not key.endswith("sha256") and key != "steps"}
        checkpoint.save(file, older)
        checkpoint.previous_of(file).unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["records.jsonl", "timings.jsonl"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_whole_unit_that_was_changed_is_refused(finished, change, name):
    file = finished.path / UNIT / name
    before = file.read_bytes()
    file.write_bytes(CHANGES[change](before))
    if file.read_bytes() == before:
        pytest.skip("nothing to change in this file")
    for read in (lambda: run_job(ToyJob(**SHAPE), finished), lambda: check_run(finished.path)):
        with pytest.raises(RunFolderError, match=rf"{name}: .*changed from outside. Restore the file, or run 'rm "):
            read()


def test_the_remedy_recomputes_the_unit_and_leaves_the_others(finished):
    before = records_of(finished.path)
    file = finished.path / UNIT / "records.jsonl"
    file.write_bytes(edited(file.read_bytes()))
    with pytest.raises(RunFolderError) as raised:
        run_job(ToyJob(**SHAPE), finished)
    command = re.search(r"'(rm .*?)' and then", str(raised.value))
    assert command and os.system(command[1]) == 0  # noqa: S605 - the command that a person is told
    job = ToyJob(**SHAPE)
    assert run_job(job, finished).exit_code == 0
    assert [path for path, _ in job.opened] == [UNIT]
    assert records_of(finished.path) == before


@pytest.mark.parametrize("name", ["records.jsonl", "timings.jsonl"])
def test_a_changed_line_before_the_end_of_an_unfinished_unit(tmp_path, name):
    folder = RunFolder.create(tmp_path, "run")
    seen = []

    def stop(unit, records):
        seen.append(records)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(ToyJob(units=1, steps=6), folder, stop)
    file = folder.path / UNIT / name
    whole = file.read_bytes()
    file.write_bytes(edited(whole))
    with pytest.raises(RunFolderError, match="does not match its checksum"):
        run_job(ToyJob(units=1, steps=6), folder)
    file.write_bytes(whole + b'{"not": "saved"}\n{"torn')
    assert check_unit(folder.path / UNIT).verified, "what lies behind what was saved is nobody's business"
    assert run_job(ToyJob(units=1, steps=6), folder).exit_code == 0


def test_a_run_without_digests_goes_on_and_is_named(finished):
    forget_digests(finished)
    assert run_job(ToyJob(**SHAPE), finished).exit_code == 0
    assert check_run(finished.path).unverified == ["toy/unit-0", "toy/unit-1"]


@pytest.mark.parametrize("change", ["cut", "emptied", "a line twice", "all of it twice"])
def test_a_run_without_digests_is_compared_by_length(finished, change):
    forget_digests(finished)
    file = finished.path / UNIT / "records.jsonl"
    file.write_bytes(CHANGES[change](file.read_bytes()))
    with pytest.raises(RunFolderError, match="bytes, but"):
        run_job(ToyJob(**SHAPE), finished)


def test_a_run_without_digests_is_read_line_by_line(finished):
    forget_digests(finished)
    file = finished.path / UNIT / "records.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"value"', b'"value ', 1))
    with pytest.raises(RunFolderError, match="line 1 is not a complete JSON object"):
        run_job(ToyJob(**SHAPE), finished)


def test_other_steps_are_refused(tmp_path):
    """A later version may cut a unit into other steps; then it must not continue at another question."""
    folder = RunFolder.create(tmp_path, "run")

    def stop(unit, records):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(ToyJob(units=1, steps=6), folder, stop)
    with pytest.raises(FingerprintError, match="steps: 6, now 3"):
        run_job(ToyJob(units=1, steps=3), folder)


def test_a_field_that_the_run_does_not_know_is_not_compared(finished):
    assert run_job(ToyJob(**SHAPE, declared={"seed": 1, "date": "2027-01-01"}), finished).exit_code == 0
    with pytest.raises(FingerprintError, match="seed was 1 and is now None"):
        run_job(ToyJob(**SHAPE, declared={"date": "2027-01-01"}), finished)


def test_a_new_name_among_the_questions_is_a_difference(tmp_path):
    folder = RunFolder.create(tmp_path, "run")
    run_job(ToyJob(declared={"questions": {"a": {"hash": 1}}}), folder)
    assert run_job(ToyJob(declared={"questions": {"a": {"hash": 1, "new": 2}}}), folder).exit_code == 0
    with pytest.raises(FingerprintError, match=r"questions\.b was None"):
        run_job(ToyJob(declared={"questions": {"a": {"hash": 1}, "b": {"hash": 2}}}), folder)


@pytest.mark.parametrize("name", ["records.jsonl", "timings.jsonl", "checkpoint.pkl", "unit.json", "error.json"])
@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_any_file_hangs_nothing(finished, name):
    file = finished.path / UNIT / name
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    for read in (lambda: run_job(ToyJob(**SHAPE), finished), lambda: check_run(finished.path)):
        try:
            read()
        except RunFolderError as error:
            assert name in str(error) and "not a regular file" in str(error)


@pytest.mark.parametrize("value", [[], "x", 3, None])
def test_another_shape_than_an_object_is_one_line(tmp_path, value):
    file = tmp_path / "model.json"
    file.write_text(json.dumps(value))
    with pytest.raises(Exception, match=r"model\.json: contains .* instead of an object; restore it, or delete"):
        read_object(file)


def test_what_earlier_attempts_recorded_is_shown_again(tmp_path):
    folder, first, second, third = RunFolder.create(tmp_path, "run"), [], [], []

    def stop(unit, records):
        first.append((unit.path, records))
        if len(first) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(ToyJob(units=1, steps=4), folder, stop)
    run_job(ToyJob(units=1, steps=4), folder, lambda unit, records: second.append(records))
    run_job(ToyJob(units=1, steps=4), folder, lambda unit, records: third.append(records))
    values = [[record["value"] for record in step] for step in second]
    assert len(values) == 4
    assert values == [[record["value"] for record in step] for step in third]
    assert values[:2] == [[record["value"] for record in step] for _, step in first]


def test_a_dry_run_compares_settings(finished):
    assert progress_of(finished, UNIT, {"seed": 1}) == "done"
    with pytest.raises(FingerprintError, match="seed was 1 and is now 2"):
        progress_of(finished, UNIT, {"seed": 2})
    assert progress_of(finished, "toy/other", {"seed": 2}) == "to do"
    assert not (finished.path / "toy/other").exists()


def test_an_unfinished_unit_of_any_job_is_named(tmp_path):
    folder = RunFolder.create(tmp_path, "run")

    def stop(unit, records):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(ToyJob(names=["converse/tiny/recall.full"], steps=4), folder, stop)
    assert check_run(folder.path).unfinished == ["converse/tiny/recall.full"]
    (folder.path / "manifest.yaml").write_text("models: []")
    read = read_run_folder(folder.path)
    assert read.partial
    assert "run/converse/tiny/recall.full" in [notice.where for notice in read.notices]


def test_a_unit_without_a_saved_step_is_unfinished_not_unverified(tmp_path):
    unit = tmp_path / "r/toy/unit-0"
    unit.mkdir(parents=True)
    (unit / "records.jsonl").touch()
    state = check_run(tmp_path / "r")
    assert (state.unverified, state.unfinished) == ([], ["toy/unit-0"])
    (unit / "records.jsonl").write_text("{}\n")
    assert check_run(tmp_path / "r").unverified == ["toy/unit-0"]


@pytest.mark.parametrize("operation", ["write", "fsync", "rename", "fsync_folder"])
@pytest.mark.parametrize(
    "save", [lambda p: file_operations.write_whole(p, b"new"), lambda p: checkpoint.save(p, {"n": 2})]
)
def test_a_write_that_fails_leaves_no_temporary_file(tmp_path, monkeypatch, operation, save):
    path = tmp_path / "checkpoint.pkl"
    checkpoint.save(path, {"n": 1})

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_operations, operation, fail)
    with pytest.raises(RunFolderError, match="Earlier results are intact"):
        save(path)
    assert not list(tmp_path.glob("*.tmp"))


def test_what_a_kill_left_is_swept_by_the_next_start(tmp_path):
    study = load_manifest_text("name: run\nmodels: [llmjobs/demo-tiny]\neval: {benchmarks: [demo]}\n", tmp_path)
    left = [
        tmp_path / "run" / name for name in ("checkpoint.pkl.tmp", "eval/m/u/records.jsonl.tmp", "summary.json.tmp")
    ]
    others = [tmp_path / "run" / name for name in ("report.pdf.tmp", "mine.tmp", "figures/a.json.tmp")]
    for path in (*left, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    with open_run(study, tmp_path, fresh=False):
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in others), "what a report writes now, or a person keeps, stays"


def load_manifest_text(text, folder):
    (folder / "m.yaml").write_text(text)
    return load_manifest(str(folder / "m.yaml"))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free some space and run the same command again"),
        (errno.ENOENT, "Name a folder that you can write to (--results, or -o for a report)"),
        (errno.EROFS, "Name a folder that you can write to"),
        (errno.EIO, "Fix the cause and run the same command again"),
    ],
)
def test_a_write_that_fails_says_what_to_do(tmp_path, number, remedy):
    with pytest.raises(RunFolderError) as raised, file_operations.clear_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert remedy in str(raised.value)
