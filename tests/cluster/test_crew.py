"""When a worker is dismissed its lease goes too, unless the run lacks something of it."""

from concurrent.futures import Future

import pytest

from llmjobs.errors import RunFolderError
from llmjobs.work import leases
from llmjobs.work.folder import RunFolder
from llmjobs.work.units import Unit

pytest.importorskip("ray", reason="ray is not installed: the crew is not tested")
from llmjobs.cluster.crew import Crew, Member  # noqa: E402
from llmjobs.cluster.placement import Demand  # noqa: E402


@pytest.fixture
def crew(tmp_path, monkeypatch):
    """One worker that Ray knows nothing of; asked to end it, older versions would start a cluster."""
    monkeypatch.setattr("ray.kill", lambda actor, no_restart: None)
    crew = object.__new__(Crew)
    crew.folder = RunFolder.create(tmp_path, "run")
    lease = leases.make_lease(crew.folder, "one")
    crew.members = [Member("one", Demand(), lease, actor=None, greeting=None)]
    return crew


def taking(result):
    future = Future()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


def test_an_idle_one_leaves_nothing(crew):
    crew.members[0].taking.add(taking(True))
    crew.dismiss_all()
    assert not crew.members and not (crew.folder.path / leases.LEASES).exists()


@pytest.mark.parametrize("state", ["a unit at hand", "a unit that could not be taken over"])
def test_what_the_run_lacks_stays_for_the_next_driver(crew, state):
    member = crew.members[0]
    if state == "a unit at hand":
        member.unit = Unit("eval/model/unit", {}, "model", 1)
    else:
        member.taking.add(taking(RunFolderError("the disk is full")))
    crew.dismiss_all()
    assert not crew.members and member.lease.path.is_dir()
