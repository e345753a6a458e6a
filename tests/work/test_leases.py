"""Leases: what an abandoned worker still writes never reaches the run, and saved work is never lost."""

import contextlib
import errno
import random
import shutil
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjobs.errors import RunFolderError
from llmjobs.work import leases, unit_progress, when_to_save
from llmjobs.work.folder import CHECKPOINT, RECORDS, TIMINGS, RunFolder
from llmjobs.work.journal import read_records
from llmjobs.work.units import Step
from llmjobs.work.when_to_save import Writer

PATH, STEPS = "eval/model/unit", 6
DECLARED = {"seed": 1}


class Hand:
    """A worker that writes a unit in its lease, step by step."""

    def __init__(self, run, name):
        self.run, self.lease = run, leases.make_lease(run, name)
        leases.seed(run, self.lease, PATH, (), steps(run))
        unit = self.lease.unit(PATH)
        self.cursor, _ = unit_progress.load(unit, DECLARED)
        self.writer = Writer(unit, self.cursor)
        work = SimpleNamespace(opening={"node": name}, effective={"plan": 1}, state=dict, steps=9)
        self.writer.opened(work)

    def step(self):
        index = self.cursor.steps_done
        if index < STEPS:
            records = [{"value": random.Random(index).random()}, {"text": "ü" * index}]
            self.writer.step(
                index, Step(records, {"items": 2, "by": self.lease.path.name}), {}, last=index + 1 == STEPS
            )

    def close(self):
        self.writer.close()


def steps(run):
    return unit_progress.load(run.unit(PATH), DECLARED)[0].steps_done


def unbroken(tmp_path):
    run = RunFolder.create(tmp_path, "plain")
    hand = Hand(run, "only")
    for _ in range(STEPS):
        hand.step()
    hand.close()
    assert leases.take_over(run, hand.lease, PATH)
    return (run.path / PATH / RECORDS).read_bytes()


@pytest.fixture(autouse=True)
def every_step_is_saved(monkeypatch):
    """No step waits to be saved together with others."""
    monkeypatch.setattr(when_to_save, "SHARE_OF_TIME", float("inf"))


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path, "run")


def test_a_stale_worker_writes_beside_the_run(run, tmp_path):
    stale = Hand(run, "stale")
    stale.step()
    stale.step()
    assert leases.take_over(run, stale.lease, PATH)
    fresh = Hand(run, "fresh")
    stale.step()  # it comes back
    fresh.step()
    stale.step()
    while fresh.cursor.steps_done < STEPS:
        fresh.step()
    assert leases.take_over(run, fresh.lease, PATH)
    stale.step()
    stale.close()
    fresh.close()
    assert (run.path / PATH / RECORDS).read_bytes() == unbroken(tmp_path)
    by = [line.get("by") for line in read_records(run.path / PATH / TIMINGS) if "by" in line]
    assert by == ["stale"] * 2 + ["fresh"] * 4
    assert unit_progress.load(run.unit(PATH), DECLARED)[0].done


@given(st.data())
def test_any_order_of_steps_losses_and_takeovers(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("any")
    run = RunFolder.create(tmp_path, "run")
    with contextlib.ExitStack() as stack:
        walk(run, data, lambda name: stack.enter_context(contextlib.closing(Hand(run, name))))
    assert (run.path / PATH / RECORDS).read_bytes() == unbroken(tmp_path)
    assert [r["step"] for r in read_records(run.path / PATH / TIMINGS) if r["phase"] == "run"] == list(range(STEPS))


def walk(run, data, hire):
    hands = [hire("0")]
    for number in range(1, 12):
        what = data.draw(st.sampled_from(["step", "stale", "lose", "restart"]))
        if what == "step":
            hands[-1].step()
        elif what == "stale":
            data.draw(st.sampled_from(hands)).step()
        elif what == "lose":
            leases.take_over(run, hands[-1].lease, PATH)
            hands.append(hire(str(number)))
        else:  # the driver was killed: leases stay, a new one collects them
            leases.collect(run)
            hands = [hire(str(number))]
        assert steps(run) <= STEPS
    while hands[-1].cursor.steps_done < STEPS:
        hands[-1].step()
    leases.take_over(run, hands[-1].lease, PATH)


def test_a_kill_between_the_renames_of_a_whole_unit_loses_nothing(run, tmp_path):
    hand = Hand(run, "a")
    for _ in range(STEPS):
        hand.step()
    hand.close()
    (hand.lease.path / PATH / RECORDS).rename(run.unit(PATH).path / RECORDS)
    leases.collect(run)
    assert (run.path / PATH / RECORDS).read_bytes() == unbroken(tmp_path)
    assert unit_progress.load(run.unit(PATH), DECLARED)[0].done
    assert not (run.path / leases.LEASES).exists()


def whole(run, name="a"):
    hand = Hand(run, name)
    for _ in range(STEPS):
        hand.step()
    hand.close()
    return hand.lease


def test_a_whole_unit_is_moved_in_one_step_and_without_what_nobody_needs(run, tmp_path):
    lease = whole(run)
    (lease.path / PATH / "error.json").write_text("{}")
    (lease.path / PATH / "records.jsonl.tmp").write_text("torn")
    (lease.path / PATH / "link").symlink_to(tmp_path)
    assert leases.take_over(run, lease, PATH)
    assert not (lease.path / PATH).exists()
    assert {file.name for file in (run.path / PATH).iterdir()} == {RECORDS, TIMINGS, CHECKPOINT}
    assert (run.path / PATH / RECORDS).read_bytes() == unbroken(tmp_path)


def test_a_unit_that_the_run_has_something_of_is_taken_file_by_file(run, tmp_path):
    lease = whole(run)
    (run.unit(PATH).path / "error.json").write_text("{}")
    assert leases.take_over(run, lease, PATH)
    assert (run.path / PATH / RECORDS).read_bytes() == unbroken(tmp_path)
    assert (run.path / PATH / "error.json").exists()


def test_a_disk_that_fails_loses_nothing(run, tmp_path, monkeypatch):
    lease = whole(run)
    monkeypatch.setattr(leases.file_operations, "rename", full)
    with pytest.raises(RunFolderError, match="No space left"):
        leases.take_over(run, lease, PATH)
    monkeypatch.undo()
    leases.collect(run)
    assert (run.path / PATH / RECORDS).read_bytes() == unbroken(tmp_path)


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_journal_that_is_too_short_is_left_out(run):
    hand = Hand(run, "a")
    hand.step()
    hand.close()
    journal = hand.lease.path / PATH / RECORDS
    journal.write_bytes(journal.read_bytes()[:-3])
    assert not leases.take_over(run, hand.lease, PATH)
    assert not (run.path / PATH / CHECKPOINT).exists()


def test_what_a_worker_writes_beside_its_unit_is_shared_once(run):
    hand = Hand(run, "a")
    hand.lease.write_json("eval/model/model.json", {"batch_tokens": 512})
    leases.share(run, hand.lease)
    hand.lease.write_json("eval/model/model.json", {"batch_tokens": 1024})
    leases.share(run, hand.lease)
    assert (run.path / "eval/model/model.json").read_text().strip() == '{\n  "batch_tokens": 512\n}'
    assert not (run.path / PATH / RECORDS).exists()
    other = Hand(run, "b")
    assert (other.lease.path / "eval/model/model.json").exists()
    hand.close()
    other.close()


def test_a_node_that_does_not_see_the_run_says_so(run, monkeypatch):
    monkeypatch.setattr(leases, "SEEN_WITHIN_S", 0.1)
    lease = leases.make_lease(run, "a")
    with pytest.raises(RunFolderError, match="2 steps are done, but this machine does not see them"):
        leases.seed(run, lease, PATH, (), 2)


def test_a_link_in_the_place_of_the_leases_is_not_followed(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "lease").mkdir(parents=True)
    (run.path / leases.LEASES).symlink_to(elsewhere)
    leases.collect(run)
    assert (elsewhere / "lease").exists()
    shutil.rmtree(elsewhere)
