"""The workers of a run: asked of Ray as they are needed, placed by it, dismissed when nothing is left for them."""

import contextlib
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from llmjobs import __version__
from llmjobs.cluster.connection import gpu_kind, node_name
from llmjobs.cluster.resources import Demand
from llmjobs.cluster.worker import ClusterJob, Greeting, UnitOrder, Worker
from llmjobs.work import leases
from llmjobs.work.folder import RunFolder
from llmjobs.work.units import Unit

FEWEST_ASKED = 4
"""So many workers are asked for ahead of Ray's placing them; more where more work already."""


@dataclass(eq=False)
class Member:
    """A worker as the driver sees it."""

    name: str
    demand: Demand
    lease: RunFolder
    actor: Any
    greeting: Any
    """Reference to its :class:`Greeting` until that came."""
    node: str = ""
    group: str | None = None
    unit: Unit | None = None
    events: Any = None
    """Ray's generator over what it tells of its unit."""
    items: int = 0
    """Told of the unit at hand."""
    opened_at: float = 0.0
    heard: float = field(default_factory=time.monotonic)
    taking: "set[Future[bool]]" = field(default_factory=set)
    """Of units that are being taken over from its lease, or could not be."""
    refused: bool = False
    """It cannot work where it is; it is kept, so that Ray does not place another there."""

    @property
    def is_free(self) -> bool:
        """Whether it could take a unit now."""
        return self.greeting is None and self.unit is None and not self.refused

    @property
    def waits_for(self) -> Any:
        """What Ray is to be asked for; None where it is idle."""
        return self.greeting if self.greeting is not None else self.events

    def start(self, unit: Unit, steps_done: int, *, shows: bool) -> None:
        """Give it a unit."""
        self.unit, self.group, self.items, self.heard = unit, unit.group, 0, time.monotonic()
        order = UnitOrder(unit, steps_done, self.node, shows)
        self.events = self.actor.run.options(num_returns="streaming").remote(order)

    def stop(self) -> None:
        """Its unit is over."""
        self.unit, self.events = None, None


class WorkerPool:
    """All workers of a run. Ray is not asked to restart them: a unit goes on wherever there is room first."""

    def __init__(self, job: ClusterJob, folder: RunFolder) -> None:
        """Bring the job into Ray's object store, once for all workers."""
        self.folder = folder
        self.members: list[Member] = []
        self.nodes: dict[str, dict[str, Any]] = {}
        """Node → its machine, of all workers so far."""
        self._job = ray.put(job.for_worker())
        self._token, self._count = secrets.token_hex(4), 0
        self._class = ray.remote(Worker)

    def ask_for(self, wanted: dict[Demand, int]) -> None:
        """Ask for workers, some ahead of those that Ray has placed, never more than there is work for."""
        for demand, number in wanted.items():
            own = [m for m in self.members if m.demand == demand and not m.refused]
            asked = sum(m.greeting is not None for m in own)
            free = sum(m.is_free for m in own)
            ahead = max(FEWEST_ASKED, len(own) - asked)
            for _ in range(min(number - free, ahead) - asked):
                self._ask(demand)

    def _ask(self, demand: Demand) -> None:
        self._count += 1
        name = f"{self._token}-{self._count}"
        lease = leases.make_lease(self.folder, name)
        options = {**demand.options(), "max_restarts": 0, "max_task_retries": 0}
        run, cwd = str(self.folder.path.absolute()), str(Path.cwd())
        actor: Any = self._class.options(**options).remote(run, str(lease.path.absolute()), cwd, demand.cpus)
        greeting = actor.greet.remote(__version__, [self._job])
        self.members.append(Member(name, demand, lease, actor, greeting))

    def greeted(self, member: Member, greeting: Greeting) -> None:
        """Note where a worker is."""
        member.greeting, member.heard = None, time.monotonic()
        member.node = node_name(greeting.node_id, greeting.host)
        member.refused = greeting.refusal is not None
        if greeting.refusal is None:
            kind = gpu_kind(greeting.node_id)
            self.nodes[member.node] = {**greeting.machine, **({"gpu": kind} if kind else {})}

    def dismiss(self, member: Member) -> None:
        """End a worker, whatever it does; a lease with anything that the run lacks is left for the next driver."""
        with contextlib.suppress(Exception):
            ray.kill(member.actor, no_restart=True)
        self.members.remove(member)
        if member.unit is None:
            self.drop_lease(member)

    def drop_lease(self, member: Member) -> None:
        """Remove a lease that the run has everything of."""
        wait(member.taking)
        if all(future.exception() is None for future in member.taking):
            leases.drop(member.lease)

    def dismiss_idle(self, wanted: dict[Demand, int]) -> None:
        """Free the room of workers that nothing is left for, where others are wanted or nothing is left at all."""
        for member in list(self.members):
            others = any(number for demand, number in wanted.items() if demand != member.demand)
            surplus = member.greeting is not None and not wanted.get(member.demand)
            if surplus or (member.is_free and others and not wanted.get(member.demand)):
                self.dismiss(member)

    def dismiss_all(self) -> None:
        """End everything."""
        for member in list(self.members):
            self.dismiss(member)
        with contextlib.suppress(OSError):
            (self.folder.path / leases.LEASES).rmdir()

    def busy(self) -> Iterator[Member]:
        """Those with a unit."""
        yield from (m for m in self.members if m.unit is not None)
