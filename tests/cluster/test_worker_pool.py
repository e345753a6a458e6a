"""When a worker is dismissed its lease goes too, unless the run lacks something of it."""

from concurrent.futures import Future

import pytest

from llmjobs.errors import RunFolderError
from llmjobs.work import leases
from llmjobs.work.folder import RunFolder
from llmjobs.work.units import Unit

pytest.importorskip("ray", reason="ray is not installed: workers are not tested")
from llmjobs.cluster.resources import Demand  # noqa: E402
from llmjobs.cluster.worker_pool import Member, WorkerPool  # noqa: E402


@pytest.fixture
def workers(tmp_path, monkeypatch):
    """One worker that Ray knows nothing of; asked to end it, older versions would start a cluster."""
    monkeypatch.setattr("ray.kill", lambda actor, no_restart: None)
    workers = object.__new__(WorkerPool)
    workers.folder = RunFolder.create(tmp_path, "run")
    lease = leases.make_lease(workers.folder, "one")
    workers.members = [Member("one", Demand(), lease, actor=None, greeting=None)]
    return workers


def taking(result):
    future = Future()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


def test_an_idle_one_leaves_nothing(workers):
    workers.members[0].taking.add(taking(True))
    workers.dismiss_all()
    assert not workers.members and not (workers.folder.path / leases.LEASES).exists()


@pytest.mark.parametrize("state", ["a unit at hand", "a unit that could not be taken over"])
def test_what_the_run_lacks_stays_for_the_next_driver(workers, state):
    member = workers.members[0]
    if state == "a unit at hand":
        member.unit = Unit("eval/model/unit", {}, "model", 1)
    else:
        member.taking.add(taking(RunFolderError("the disk is full")))
    workers.dismiss_all()
    assert not workers.members and member.lease.path.is_dir()
