"""Run one job's units on a Ray cluster: assign units to workers, and copy their results into the run's folder."""

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import ray

from llmjobs.cluster.connection import ClusterError, alive_nodes, check_there
from llmjobs.cluster.resources import Demand
from llmjobs.cluster.worker import Advanced, Ended, Event, Logged, Opened
from llmjobs.cluster.worker_pool import SILENCE_S, Member, WorkerPool
from llmjobs.errors import plain_reason
from llmjobs.progress_bar import Progress
from llmjobs.work import leases, unit_progress
from llmjobs.work.folder import ERROR_FILE, RunFolder
from llmjobs.work.outcome import Outcome
from llmjobs.work.run import OnRecords, Start, UnitLoop, items_done, load_start, one_line
from llmjobs.work.signals import StopRequestedError, StopSwitch, stop_switch
from llmjobs.work.units import ClusterJob, Unit

# Which unit a worker takes next. Units of one group (a model) follow each other, so it is rarely loaded.


@dataclass
class _Group:
    """The units of one model that no worker has yet, and the workers on that model."""

    demand: Demand
    units: deque[Unit] = field(default_factory=deque)
    items: int = 0
    holders: set[str] = field(default_factory=set)
    is_open: bool = False
    """Whether a worker has loaded the model, so that another one may join and make the same plan."""
    load_s: float | None = None
    item_s: float | None = None

    def push(self, unit: Unit, *, first: bool = False) -> None:
        (self.units.appendleft if first else self.units.append)(unit)
        self.items += _items(unit)

    def pop(self) -> Unit:
        unit = self.units.popleft()
        self.items -= _items(unit)
        return unit


class Assignment:
    """Units that are still to be assigned.

    A worker stays with its group as long as that has units. A free worker takes the group with the most work per
    worker: a new one, or part of one that others have loaded, if that saves more time than loading takes.
    """

    def __init__(self, units: Iterable[Unit], demands: Mapping[str, Demand]) -> None:
        self._groups: dict[str, _Group] = {}
        self._given: dict[str, Unit] = {}
        self._rates: dict[str, float] = {}
        self._rate = 1.0
        """Seconds per item and unit of weight, over the groups that were measured."""
        for unit in units:
            self._groups.setdefault(unit.group, _Group(demands[unit.group])).push(unit)

    @property
    def is_over(self) -> bool:
        """Whether every unit was assigned and none came back."""
        return not self._given and not any(group.units for group in self._groups.values())

    def demands(self) -> dict[Demand, int]:
        """The demands for which workers are needed, and how many more workers each could use at once."""
        wanted: dict[Demand, int] = {}
        for group in self._groups.values():
            if group.units:
                most = 1 if not group.holders else len(group.units) if self._pays(group) else 0
                wanted[group.demand] = wanted.get(group.demand, 0) + most
        return wanted

    def take(self, worker: str, demand: Demand, holds: str | None) -> Unit | None:
        """Return the next unit for ``worker``, which has loaded ``holds``; None if there is none for it now."""
        own = self._groups.get(holds or "")
        if own is not None and own.units:
            return self._give(own, worker)
        for group in self._groups.values():
            group.holders.discard(worker)
        found = max(
            (g for g in self._groups.values() if g.demand == demand and g.units and (not g.holders or self._pays(g))),
            key=lambda group: self._seconds(group) / (len(group.holders) + 1),
            default=None,
        )
        return self._give(found, worker) if found else None

    def ended(self, unit: Unit) -> None:
        """Remove a unit that is done or has finally failed."""
        self._given.pop(unit.path, None)

    def give_back(self, unit: Unit) -> None:
        """Put back a unit that did not end; it comes first."""
        self._given.pop(unit.path, None)
        self._groups[unit.group].push(unit, first=True)

    def forget_worker(self, worker: str) -> None:
        for group in self._groups.values():
            group.holders.discard(worker)

    def learn(self, name: str, *, load_s: float | None = None, item_s: float | None = None) -> None:
        """Store measurements of a group: seconds to load it, seconds per item."""
        group = self._groups[name]
        group.is_open = True
        group.load_s = group.load_s if load_s is None else load_s
        if item_s is not None:
            group.item_s = item_s
            self._rates[name] = item_s / group.demand.weight
            self._rate = sum(self._rates.values()) / len(self._rates)

    def _give(self, group: _Group, worker: str) -> Unit:
        unit = group.pop()
        group.holders.add(worker)
        self._given[unit.path] = unit
        return unit

    def _pays(self, group: _Group) -> bool:
        """Whether another worker on a loaded group saves more time than it takes to load."""
        if not group.is_open:
            return False
        if group.item_s is None or group.load_s is None:
            return len(group.units) > 1
        return self._seconds(group) / (len(group.holders) + 1) > group.load_s

    def _seconds(self, group: _Group) -> float:
        """Remaining seconds of a group. Without measurements, its speed is derived from its weight."""
        return group.items * (group.item_s or group.demand.weight * self._rate)


def _items(unit: Unit) -> int:
    return max(unit.size, 1)


# The driver's loop: assign units to workers, print their messages, copy their results into the run's folder.

ATTEMPTS = 3
"""A unit that fails this often without progress is recorded as failed."""
LISTEN_S = 0.5
TAKERS = 4
"""Threads that copy finished units, so a worker need not wait for the disk before its next unit."""
PATIENCE_S = 30.0
"""After this time without a worker, the terminal says what the run is waiting for, and again every minute."""


@dataclass(frozen=True)
class _Taking:
    """A finished unit that is being copied from a lease into the run."""

    unit: Unit
    member: Member
    future: "Future[bool]"


@dataclass
class Driver:
    """Runs units on the workers. Only the driver writes to the run's folder."""

    workers: WorkerPool
    folder: RunFolder
    demands: Mapping[str, Demand]
    switch: StopSwitch
    progress: Progress
    outcome: Outcome
    on_records: OnRecords | None = None
    silence_s: float = SILENCE_S
    _failures: dict[str, int] = field(default_factory=dict)
    _quiet_since: float = field(default_factory=time.monotonic)
    _taking: list[_Taking] = field(default_factory=list)
    _takers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(TAKERS))

    def run(self, units: Sequence[Unit]) -> None:
        """Run ``units`` until each is done or has failed.

        Raises:
            StopRequestedError: a signal came; workers are ended and their saved progress is copied.
            ClusterError: no node can work for this run, or the cluster is lost.

        """
        assignment = Assignment(units, self.demands)
        try:
            while not assignment.is_over:
                check_there()
                with self.switch.step():
                    self._round(assignment)
                self.switch.check()
        finally:
            try:
                wait([taking.future for taking in self._taking])
                self._take_results(assignment)
            finally:
                for member in list(self.workers.busy()):
                    self._lose(member, assignment, None)

    def _round(self, assignment: Assignment) -> None:
        wanted = assignment.demands()
        self.workers.dismiss_idle(wanted)
        self.workers.ask_for(wanted)
        for member in self.workers.members:
            if member.is_free and (unit := assignment.take(member.name, member.demand, member.group)):
                self.progress.unit(unit.path)
                member.start(unit, self._cursor(unit).steps_done, shows=self.on_records is not None)
        for member in self._ready():
            self._listen(member, assignment)
        self._take_results(assignment)
        for member in list(self.workers.busy()):
            if member.is_lost(self.silence_s):
                self._lose(member, assignment, f"no heartbeat for {self.silence_s:g} s")
        self._tell_waiting(wanted)

    def _ready(self) -> list[Member]:
        waiting = {m.waits_for: m for m in self.workers.members if m.waits_for is not None}
        if not waiting:
            if self._taking:
                wait([taking.future for taking in self._taking], LISTEN_S)
            else:
                time.sleep(LISTEN_S)
            return []
        ray.wait(list(waiting), timeout=LISTEN_S, fetch_local=False)
        ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0, fetch_local=False)
        return [waiting[one] for one in ready]

    def _listen(self, member: Member, assignment: Assignment) -> None:
        try:
            if member.greeting is not None:
                self._greet(member)
                return
            events: list[Event] = ray.get(next(member.events))
        except (ray.exceptions.RayError, StopIteration) as error:
            self._lose(member, assignment, _why(error))
            return
        member.heard = time.monotonic()
        for event in events:
            self._take(member, event, assignment)

    def _greet(self, member: Member) -> None:
        greeting = ray.get(member.greeting)
        self.workers.greeted(member, greeting)
        if greeting.refusal:
            self.progress.say(f"{member.node}: {greeting.refusal}")

    def _take(self, member: Member, event: Event, assignment: Assignment) -> None:
        unit = member.unit
        assert unit is not None
        match event:
            case Logged(line):
                self.progress.say(f"{member.node}: {line}")
            case Opened(load_s):
                member.opened_at = time.monotonic()
                leases.share(self.folder, member.lease)
                assignment.learn(unit.group, load_s=load_s)
            case Advanced(items, records):
                if records and self.on_records:
                    self.on_records(unit, records)
                member.items += items
                self.progress.advance(items, unit.path)
            case Ended(None):
                self._finish(member, unit, assignment)
            case Ended(error):
                self._keep(member, unit)
                member.stop()
                self._failed(unit, f"{error} (on {member.node})", assignment)

    def _finish(self, member: Member, unit: Unit, assignment: Assignment) -> None:
        """Copy a finished unit while its worker continues."""
        if member.items and member.opened_at:
            assignment.learn(unit.group, item_s=(time.monotonic() - member.opened_at) / member.items)
        future = self._takers.submit(self._take_over, member.lease, unit)
        member.taking.add(future)
        self._taking.append(_Taking(unit, member, future))
        member.stop()

    def _take_over(self, lease: RunFolder, unit: Unit) -> bool:
        """Whether the run now has the complete unit. Runs in a thread, so it may only touch the unit's own files."""
        leases.take_over(self.folder, lease, unit.path)
        whole = self._cursor(unit).done
        if whole:
            (self.folder.path / unit.path / ERROR_FILE).unlink(missing_ok=True)
        return whole

    def _take_results(self, assignment: Assignment) -> None:
        """Count the units that were copied. A unit whose files this machine cannot find has failed.

        Raises:
            RunFolderError: the run cannot be written; the lease stays for the next driver.

        """
        for taking in [one for one in self._taking if one.future.done()]:
            self._taking.remove(taking)
            whole = taking.future.result()
            taking.member.taking.discard(taking.future)
            if whole:
                assignment.ended(taking.unit)
                self.outcome.done += 1
            else:
                line = (
                    f"is finished on {taking.member.node}, but this machine cannot read its files; "
                    "put the results on a file system that all nodes share"
                )
                self._failed(taking.unit, line, assignment)

    def _keep(self, member: Member, unit: Unit) -> None:
        """Copy what an unfinished unit has on disk, and update the counts."""
        before = self._cursor(unit)
        if leases.take_over(self.folder, member.lease, unit.path):
            after = self._cursor(unit)
            if after.steps_done > before.steps_done:
                self._failures.pop(unit.path, None)
            self.progress.advance(after.items_done - before.items_done - member.items, unit.path)
        else:
            self.progress.advance(-member.items, unit.path)

    def _lose(self, member: Member, assignment: Assignment, why: str | None) -> None:
        """Continue without a worker; ``why`` is None if the run itself ends."""
        unit = member.unit
        member.stop()
        self.workers.members.remove(member)
        with contextlib.suppress(Exception):
            ray.kill(member.actor, no_restart=True)
        assignment.forget_worker(member.name)
        if unit is not None:
            self._keep(member, unit)
        self.workers.drop_lease(member)
        if why is None:
            return
        where = member.node or "a worker that was starting"
        if unit is None:
            self.progress.say(f"{where}: lost: {why}")
        else:
            self._failed(unit, f"lost its worker on {where}: {why}", assignment)

    def _failed(self, unit: Unit, line: str, assignment: Assignment) -> None:
        """Try a unit again, or record it as failed."""
        count = self._failures[unit.path] = self._failures.get(unit.path, 0) + 1
        if count < ATTEMPTS:
            self.progress.say(f"{unit.path}: {line}; attempt {count} of {ATTEMPTS}, trying again")
            assignment.give_back(unit)
            return
        assignment.ended(unit)
        self.outcome.failed[unit.path] = line
        RunFolder(self.folder.path / unit.path).write_json(ERROR_FILE, {"unit": unit.path, "error": line})
        self.progress.say(f"failed: {unit.path}: {line}")

    def _cursor(self, unit: Unit) -> unit_progress.Cursor:
        return unit_progress.load(self.folder.unit(unit.path), unit.declared)[0]

    def _tell_waiting(self, wanted: Mapping[Demand, int]) -> None:
        """Print what the run is waiting for while no worker is running."""
        if any(True for _ in self.workers.busy()) or not any(wanted.values()):
            self._quiet_since = time.monotonic()
            return
        if time.monotonic() - self._quiet_since < PATIENCE_S:
            return
        if any(m.refused for m in self.workers.members):
            raise ClusterError("no node of the cluster can work on this run; the lines above give the reasons")
        self._quiet_since = time.monotonic() - PATIENCE_S + 60.0
        nodes = [node["Resources"] for node in alive_nodes()]
        for demand in wanted:
            fits = any(demand.fits(resources) for resources in nodes)
            state = (
                "waiting for free resources" if fits else f"no node is large enough (of {len(nodes)}); waiting for one"
            )
            self.progress.say(f"a worker needs {demand}: {state}; press Ctrl-C to stop; progress is saved")


def _why(error: BaseException) -> str:
    """The first meaningful line of Ray's report on a dead worker."""
    if isinstance(error, StopIteration):
        return "the worker exited without reporting an error"
    if isinstance(error, ray.exceptions.RayTaskError):
        return one_line(error.cause)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = [line for line in lines if "died" in line or "killed" in line or "memory" in line]
    return (found or lines or [plain_reason(error)])[0][:300]


# One job's units on a cluster, from the list of units to the outcome; the counterpart of `run_job`.

CLUSTER_FILE = "cluster.json"


def run_on_cluster(
    job: ClusterJob,
    folder: RunFolder,
    demands: Mapping[str, Demand],
    on_records: OnRecords | None = None,
    silence_s: float = SILENCE_S,
) -> Outcome:
    """Run every unit of ``job`` that is not done on the cluster that this process is connected to.

    Units with ``stays`` run here, after the others of their level. ``demands`` maps groups to demands.

    Raises:
        FingerprintError: a unit on disk was made with other settings (all are compared before the first one runs).
        RunFolderError: the folder cannot be written; saved results stay intact.
        ClusterError: no node can work for this run, or the cluster is lost.

    """
    outcome, began = Outcome(), time.monotonic()
    workers: WorkerPool | None = None
    with contextlib.ExitStack() as stack:
        stack.callback(job.close)
        switch = stack.enter_context(stop_switch())
        try:
            units = job.units()
            outcome.units, outcome.knows_units = len(units), True
            starts = {unit.path: load_start(folder, unit) for unit in units}
            done = items_done(units, [starts[unit.path] for unit in units])
            progress = Progress(job.name, sum(unit.size for unit in units), done)
            stack.callback(progress.close)
            with switch.step():
                workers = WorkerPool(job, folder)
            stack.callback(workers.dismiss_all)
            driver = Driver(workers, folder, demands, switch, progress, outcome, on_records, silence_s)
            loop = UnitLoop(job, switch, progress, outcome, on_records)
            for level in levels(units):
                _run_level(level, starts, driver, loop)
        except StopRequestedError as stop:
            outcome.stopped_by = str(stop)
        if workers is not None and workers.nodes:
            _note(folder, workers, time.monotonic() - began)
    return outcome


def _run_level(level: Sequence[Unit], starts: Mapping[str, Start], driver: Driver, loop: UnitLoop) -> None:
    away = [unit for unit in level if not unit.stays and not starts[unit.path].cursor.done]
    driver.run(away)
    sent = {unit.path for unit in away}
    for unit in level:
        if unit.path not in sent:
            loop.unit(unit, starts[unit.path])


def levels(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Units in stages; each unit only needs units of earlier stages."""
    depth: dict[str, int] = {}
    for unit in units:
        depth[unit.path] = 1 + max((depth[one] for one in unit.needs), default=0)
    for row in range(1, max(depth.values(), default=0) + 1):
        yield [unit for unit in units if depth[unit.path] == row]


def _note(folder: RunFolder, workers: WorkerPool, real_s: float) -> None:
    """Record the machines of the latest attempt."""
    folder.write_json(CLUSTER_FILE, {"ray": ray.__version__, "real_s": round(real_s, 3), "nodes": workers.nodes})
