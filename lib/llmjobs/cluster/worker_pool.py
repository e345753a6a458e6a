"""The workers of a run: requested from Ray as needed, and dismissed when nothing is left for them."""

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
from llmjobs.cluster.worker import BEAT_S, Greeting, UnitOrder, Worker
from llmjobs.work import leases
from llmjobs.work.folder import RunFolder
from llmjobs.work.units import ClusterJob, Unit

SILENCE_S = 24 * BEAT_S
"""A worker without a heartbeat for this long (two minutes) is given up; heartbeats continue during long steps."""
FEWEST_ASKED = 4
"""How many workers are requested before Ray has placed them; more if more are already working."""


@dataclass(eq=False)
class Member:
    """A worker as the driver sees it."""

    name: str
    demand: Demand
    lease: RunFolder
    actor: Any
    greeting: Any
    """Reference to its :class:`Greeting` until that arrives."""
    node: str = ""
    group: str | None = None
    unit: Unit | None = None
    events: Any = None
    """Ray's generator of the unit's events."""
    items: int = 0
    """What it has reported about the current unit."""
    opened_at: float = 0.0
    heard: float = field(default_factory=time.monotonic)
    taking: "set[Future[bool]]" = field(default_factory=set)
    """Units that are being copied from its lease, or could not be."""
    refused: bool = False
    """It cannot work on its node. It is kept, so that Ray does not place another worker there."""

    @property
    def is_free(self) -> bool:
        return self.greeting is None and self.unit is None and not self.refused

    @property
    def waits_for(self) -> Any:
        """The reference that Ray is asked to wait for; None if the worker is idle."""
        return self.greeting if self.greeting is not None else self.events

    def is_lost(self, silence_s: float = SILENCE_S) -> bool:
        """Whether nothing was heard of it for too long."""
        return time.monotonic() - self.heard > silence_s

    def start(self, unit: Unit, steps_done: int, *, shows: bool) -> None:
        self.unit, self.group, self.items, self.heard = unit, unit.group, 0, time.monotonic()
        order = UnitOrder(unit, steps_done, self.node, shows)
        self.events = self.actor.run.options(num_returns="streaming").remote(order)

    def stop(self) -> None:
        """Forget the unit, which has ended."""
        self.unit, self.events = None, None


class WorkerPool:
    """All workers of a run. Ray does not restart them: a unit continues wherever there is room first."""

    def __init__(self, job: ClusterJob, folder: RunFolder) -> None:
        """Put the job into Ray's object store, once for all workers."""
        self.folder = folder
        self.members: list[Member] = []
        self.nodes: dict[str, dict[str, Any]] = {}
        """Node → its machine, for all workers so far."""
        self._job = ray.put(job.for_worker())
        self._token, self._count = secrets.token_hex(4), 0
        self._class = ray.remote(Worker)

    def ask_for(self, wanted: dict[Demand, int]) -> None:
        """Request workers, some before Ray has placed others, but never more than there is work for."""
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
        """Store where a worker is."""
        member.greeting, member.heard = None, time.monotonic()
        member.node = node_name(greeting.node_id, greeting.host)
        member.refused = greeting.refusal is not None
        if greeting.refusal is None:
            kind = gpu_kind(greeting.node_id)
            self.nodes[member.node] = {**greeting.machine, **({"gpu": kind} if kind else {})}

    def dismiss(self, member: Member) -> None:
        """End a worker, whatever it is doing. A lease with anything that the run lacks is kept for the next driver."""
        with contextlib.suppress(Exception):
            ray.kill(member.actor, no_restart=True)
        self.members.remove(member)
        if member.unit is None:
            self.drop_lease(member)

    def drop_lease(self, member: Member) -> None:
        """Remove a lease whose content the run has completely."""
        wait(member.taking)
        if all(future.exception() is None for future in member.taking):
            leases.drop(member.lease)

    def dismiss_idle(self, wanted: dict[Demand, int]) -> None:
        """Dismiss workers that have nothing left to do, if others are wanted or nothing is left at all."""
        for member in list(self.members):
            others = any(number for demand, number in wanted.items() if demand != member.demand)
            surplus = member.greeting is not None and not wanted.get(member.demand)
            if surplus or (member.is_free and others and not wanted.get(member.demand)):
                self.dismiss(member)

    def dismiss_all(self) -> None:
        for member in list(self.members):
            self.dismiss(member)
        with contextlib.suppress(OSError):
            (self.folder.path / leases.LEASES).rmdir()

    def busy(self) -> Iterator[Member]:
        yield from (m for m in self.members if m.unit is not None)
