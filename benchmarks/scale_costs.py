"""What a cluster's driver does and holds for a unit, measured here: on this disk, and with Ray on this machine."""

import pickle
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unittest import mock

from llmjobs import file_operations
from llmjobs.cluster.connection import connected
from llmjobs.cluster.resources import Demand
from llmjobs.cluster.run import TAKERS, Driver, run_on_cluster
from llmjobs.work import leases
from llmjobs.work.folder import RunFolder
from llmjobs.work.run import load_start
from llmjobs.work.unit_progress import Cursor
from llmjobs.work.units import Saved, Step, Unit
from llmjobs.work.when_to_save import Writer


@dataclass(frozen=True)
class Driving:
    """What the driver does for a unit."""

    dispatch_s: float
    """Its loop, one worker after the other: what came is read, the next unit sent."""
    taking_s: float
    """Taking whole units over, beside the loop; a unit's share of the threads' time."""


def cost_of_a_unit(folder: Path, count: int = 400) -> dict[str, Any]:
    """File operations of the driver and of a worker for one unit; the driver's time in its threads."""
    run = RunFolder.create(folder, "run")
    calls: dict[str, Counter[str]] = {"worker": Counter(), "driver": Counter()}
    lease = leases.make_lease(run, "lease")
    paths = [f"eval/model/unit-{number}" for number in range(count)]
    for path in paths:
        run.unit(path)  # as the start of a run makes them
        with counted(calls["worker"]):
            writer = Writer(lease.unit(path), Cursor({"seed": 0}))
            writer.opened({}, {"plan": [1] * 200}, {})
            for step in range(4):
                records = [{"doc_id": n, "loglikelihoods": [-1.5] * 4} for n in range(50)]
                writer.step(step, Step(records), {}, last=step == 3)
            writer.close()
    with counted(calls["driver"]), ThreadPoolExecutor(TAKERS) as takers:
        began = time.perf_counter()
        assert all(takers.map(lambda path: leases.take_over(run, lease, path), paths))
        seconds = time.perf_counter() - began
    unit = [path for path in (run.path / paths[0]).iterdir() if path.is_file()]
    return {
        "taking_ms": round(seconds / count * 1e3, 2),
        "worker_operations": sum(calls["worker"].values()) / count,
        "driver_operations": sum(calls["driver"].values()) / count,
        "files": len(unit) + 1,  # unit.json
        "bytes": sum(path.stat().st_size for path in unit),
    }


class Nothing:
    """A job whose units are empty: all that is left is what the driver does for them."""

    name = "nothing"
    effective: Mapping[str, Any] = {"plan": 1}
    opening: Mapping[str, Any] = {"load_s": None}
    steps = 1

    def __init__(self, folder: RunFolder, count: int) -> None:
        self.folder, self.count = folder, count

    def units(self) -> list[Unit]:
        """One step each."""
        return [Unit(f"eval/model-{n % 2}/unit-{n}", {}, f"model-{n % 2}", 1) for n in range(self.count)]

    def for_worker(self) -> Self:
        """Nothing is loaded."""
        return self

    @contextmanager
    def open(self, unit: Unit, saved: Saved | None) -> Iterator[Self]:
        """Be the work too."""
        yield self

    def step(self, index: int) -> Step:
        """One record."""
        return Step([{"doc_id": index}])

    def state(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def close(self) -> None:
        """Nothing is open."""


def cost_of_a_message(folder: Path, count: int = 300) -> float:
    """CPU milliseconds of the driver's loop for a unit: two workers on a cluster of this machine, empty units."""
    run, spent = RunFolder.create(folder, "messages"), Spent()
    with connected("local"), mock.patch.object(Driver, "_round", spent.timed(Driver._round)):
        demand = Demand(1.0, 0.0, 100 << 20)
        outcome = run_on_cluster(Nothing(run, count), run, {"model-0": demand, "model-1": demand})
    assert outcome.done == count, outcome
    return round(spent.cpu_s / count * 1e3, 2)


class Spent:
    """CPU time of this thread within a call."""

    cpu_s = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call``, timed."""

        def timed(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*arguments)
            finally:
                self.cpu_s += time.thread_time() - began

        return timed


class counted:  # noqa: N801 - a context manager, read as a word
    """Counts the file operations of :mod:`llmjobs.file_operations`."""

    def __init__(self, calls: Counter[str]) -> None:
        self.patches = [mock.patch.object(file_operations, name, self._counting(name, calls)) for name in OPERATIONS]

    def _counting(self, name: str, calls: Counter[str]) -> Any:
        real = getattr(file_operations, name)

        def call(*arguments: Any) -> Any:
            calls[name] += 1
            return real(*arguments)

        return call

    def __enter__(self) -> None:
        for patch in self.patches:
            patch.start()

    def __exit__(self, *_: object) -> None:
        for patch in self.patches:
            patch.stop()


OPERATIONS = ("write", "fsync", "fsync_folder", "rename", "truncate", "make_folder")


def state_of_the_driver(folder: Path, count: int = 2000) -> dict[str, float]:
    """Bytes that the driver holds for a unit, and those of the job that goes to the workers."""
    declared = {f"field-{n}": f"value {n} of what decides a record" for n in range(20)}
    run = RunFolder.create(folder, "state")
    tracemalloc.start()
    units = [Unit(f"eval/model/unit-{n}", dict(declared), "model", 100) for n in range(count)]
    starts = [load_start(run, unit) for unit in units]
    held = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    assert len(starts) == count
    return {"driver_bytes_a_unit": round(held), "job_bytes_a_unit": round(len(pickle.dumps(units[0])))}
