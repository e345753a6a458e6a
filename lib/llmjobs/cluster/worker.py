"""The actor that runs units on a node, and the messages that it sends to the driver."""

import contextlib
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import ray

from llmjobs import __version__
from llmjobs.environment import describe_machine
from llmjobs.errors import LlmjobsError
from llmjobs.progress_bar import Progress
from llmjobs.work import leases
from llmjobs.work.folder import RunFolder
from llmjobs.work.journal import Record
from llmjobs.work.run import one_line, run_job
from llmjobs.work.units import ClusterJob, Saved, Step, Unit, Work

# Messages from a worker to the driver, in order.


@dataclass(frozen=True)
class Opened:
    """The model is loaded and the unit planned."""

    load_s: float | None
    """Seconds of loading; None if it was already loaded."""


@dataclass(frozen=True)
class Advanced:
    """Items that are saved; ``records`` if the driver shows them."""

    items: int
    records: Sequence[Record] = ()


@dataclass(frozen=True)
class Logged:
    """A warning or an error that was logged while the unit ran."""

    line: str


@dataclass(frozen=True)
class Ended:
    """The unit is finished, or failed with one line."""

    error: str | None = None


Event = Opened | Advanced | Logged | Ended


@dataclass(frozen=True)
class Greeting:
    """A worker's first message: its node, and the reason if it cannot work there."""

    node_id: str
    host: str
    machine: dict[str, Any]
    refusal: str | None = None


# The actor that runs units, with the same runner and the same job, in a lease instead of the run's folder.

BEAT_S = 5.0
"""Interval of heartbeats while a worker has nothing to report."""
GATHER_S = 0.2
"""Events within this time are sent together."""
THREADS_VARIABLE = "LLMJOBS_MAX_THREADS"


@dataclass(frozen=True)
class UnitOrder:
    """One unit to run."""

    unit: Unit
    steps_done: int
    node: str
    shows: bool
    """Whether to send the records, not only their number."""


class Worker:
    """Runs one unit after another; the job's model stays loaded in between."""

    def __init__(self, run: str, lease: str, cwd: str, cpus: float) -> None:
        """Do nothing expensive, because Ray considers the worker started when this returns."""
        self._run, self._lease = RunFolder(Path(run)), RunFolder(Path(lease))
        self._machine: dict[str, Any] = {}
        self._job: ClusterJob | None = None
        os.environ[THREADS_VARIABLE] = str(max(int(cpus), 1))
        with contextlib.suppress(OSError):
            os.chdir(cwd)

    def greet(self, version: str, job: Sequence[Any]) -> Greeting:
        """Check that this node can work for the driver, and take over the job (a reference in a list)."""
        found = describe_machine()["machine"]
        self._machine = {key: found[key] for key in ("cpu", "cores", "memory_bytes", "system")}
        refusal = self._refusal(version)
        if refusal is None:
            try:
                self._job = ray.get(job[0])
                self._job.folder = self._lease
            except Exception as error:
                refusal = f"the job cannot be loaded: {one_line(error)}"
        node_id = ray.get_runtime_context().get_node_id()
        return Greeting(node_id, socket.gethostname(), self._machine, refusal)

    def _refusal(self, version: str) -> str | None:
        if version != __version__:
            return f"has llmjobs {__version__}, but the driver has {version}; install the same version on all nodes"
        deadline = time.monotonic() + leases.SEEN_WITHIN_S
        while not self._lease.path.is_dir():
            if time.monotonic() > deadline:
                return f"does not see {self._run.path}; the results must be on a file system that all nodes share"
            time.sleep(0.5)
        if not os.access(self._lease.path, os.W_OK):
            return f"cannot write {self._run.path} as user {os.geteuid()}; make the folder writable for this user"
        return None

    def run(self, order: UnitOrder) -> Iterator[list[Event]]:
        """Run a unit; yield events as they happen, and an empty list as a heartbeat."""
        outbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        thread = threading.Thread(target=self._work, args=(order, outbox), daemon=True)
        with _Logs(outbox):
            thread.start()
            while True:
                events = _gather(outbox)
                yield events
                if events and isinstance(events[-1], Ended):
                    break
        thread.join()

    def _work(self, order: UnitOrder, outbox: "queue.SimpleQueue[Event]") -> None:
        assert self._job is not None
        unit = order.unit

        def on_records(_: Unit, records: Sequence[Record]) -> None:
            outbox.put(Advanced(0, records))

        try:
            leases.seed(self._run, self._lease, unit.path, unit.needs, order.steps_done)
            one = _OneUnit(self._job, unit, outbox, {"node": order.node, "machine": self._machine})
            outcome = run_job(one, self._lease, on_records if order.shows else None, lambda *_: _ProgressEvents(outbox))
            outbox.put(Ended(outcome.failed.get(unit.path)))
        except LlmjobsError as error:
            outbox.put(Ended(str(error)))
        except BaseException as error:
            outbox.put(Ended(one_line(error)))


def _gather(outbox: "queue.SimpleQueue[Event]") -> list[Event]:
    try:
        events = [outbox.get(timeout=BEAT_S)]
    except queue.Empty:
        return []
    deadline = time.monotonic() + GATHER_S
    while not isinstance(events[-1], Ended):
        try:
            events.append(outbox.get(timeout=max(deadline - time.monotonic(), 0.0)))
        except queue.Empty:
            break
    return _joined(events)


def _joined(events: Sequence[Event]) -> list[Event]:
    """Merge several advances without records into one."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        plain = isinstance(event, Advanced) and not event.records
        if plain and isinstance(last, Advanced) and not last.records:
            assert isinstance(event, Advanced)
            found[-1] = Advanced(last.items + event.items)
        else:
            found.append(event)
    return found


class _ProgressEvents(Progress):
    """Sends progress to the driver."""

    def __init__(self, outbox: "queue.SimpleQueue[Event]") -> None:
        self._outbox = outbox

    def unit(self, name: str) -> None: ...

    def advance(self, items: int, unit: str) -> None:
        self._outbox.put(Advanced(items))

    def say(self, line: str) -> None:
        """Do nothing, because failures are reported at the end."""

    def close(self) -> None: ...


class _Logs(logging.Handler):
    """Sends log lines to the driver while a unit runs."""

    def __init__(self, outbox: "queue.SimpleQueue[Event]") -> None:
        super().__init__(logging.WARNING)
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        self._outbox.put(Logged(record.getMessage()))

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)


@dataclass
class _OneUnit:
    """A job reduced to one unit; closing it keeps the model loaded for the next one."""

    job: ClusterJob
    only: Unit
    outbox: "queue.SimpleQueue[Event]"
    place: Mapping[str, Any]
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.job.name

    def units(self) -> Sequence[Unit]:
        return [self.only]

    @contextmanager
    def open(self, unit: Unit, saved: Saved | None) -> Iterator[Work]:
        with self.job.open(unit, saved) as work:
            load_s = work.opening.get("load_s")
            self.outbox.put(Opened(None if load_s is None else float(load_s)))
            yield _Placed(work, {**work.opening, **self.place})

    def close(self) -> None:
        pass


@dataclass
class _Placed:
    """Work whose opening line says where it ran."""

    work: Work
    opening: Mapping[str, Any]

    @property
    def effective(self) -> Mapping[str, Any]:
        return self.work.effective

    @property
    def steps(self) -> int:
        return self.work.steps

    def step(self, index: int) -> Step:
        return self.work.step(index)

    def state(self) -> Mapping[str, Any]:
        return self.work.state()
