"""One job's units on a cluster, from the list of units to the outcome: what ``run_job`` is on one machine."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

import ray

from llmjobs.cluster.crew import Crew
from llmjobs.cluster.demand import Demand
from llmjobs.cluster.driver import SILENCE_S, Driver
from llmjobs.cluster.worker import ClusterJob
from llmjobs.runfolder.folder import RunFolder
from llmjobs.runner.progress import Progress
from llmjobs.runner.run import OnRecords, Outcome, Start, UnitLoop, items_done, load_start
from llmjobs.runner.signals import StopRequestedError, stop_switch
from llmjobs.runner.units import Unit

CLUSTER_FILE = "cluster.json"


def run_on_cluster(
    job: ClusterJob,
    folder: RunFolder,
    demands: Mapping[str, Demand],
    on_records: OnRecords | None = None,
    silence_s: float = SILENCE_S,
) -> Outcome:
    """Run every unit of ``job`` that is not done on the cluster that this process is connected to.

    Units that stay run here, after the others of their level. ``demands`` by group.

    Raises:
        FingerprintError: a unit on disk was made with other settings (all are compared before the first one runs).
        RunFolderError: the folder cannot be written; what was saved stays whole.
        ClusterError: no node can work for this run.

    """
    outcome, began = Outcome(), time.monotonic()
    crew: Crew | None = None
    with contextlib.ExitStack() as stack:
        stack.callback(job.close)
        switch = stack.enter_context(stop_switch())
        try:
            units = job.units()
            outcome.units = len(units)
            starts = {unit.path: load_start(folder, unit) for unit in units}
            done = items_done(units, [starts[unit.path] for unit in units])
            progress = Progress(job.name, sum(unit.size for unit in units), done)
            stack.callback(progress.close)
            with switch.step():
                crew = Crew(job, folder)
            stack.callback(crew.dismiss_all)
            driver = Driver(crew, folder, demands, switch, progress, outcome, on_records, silence_s)
            loop = UnitLoop(job, switch, progress, outcome, on_records)
            for level in levels(units):
                _run_level(level, starts, driver, loop)
        except StopRequestedError as stop:
            outcome.stopped_by = str(stop)
        if crew is not None and crew.nodes:
            _note(folder, crew, time.monotonic() - began)
    return outcome


def _run_level(level: Sequence[Unit], starts: Mapping[str, Start], driver: Driver, loop: UnitLoop) -> None:
    away = [unit for unit in level if not unit.stays and not starts[unit.path].cursor.done]
    driver.run(away)
    sent = {unit.path for unit in away}
    for unit in level:
        if unit.path not in sent:
            loop.unit(unit, starts[unit.path])


def levels(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Units in rows: each needs only those of earlier rows."""
    depth: dict[str, int] = {}
    for unit in units:
        depth[unit.path] = 1 + max((depth[one] for one in unit.needs), default=0)
    for row in range(1, max(depth.values(), default=0) + 1):
        yield [unit for unit in units if depth[unit.path] == row]


def _note(folder: RunFolder, crew: Crew, real_s: float) -> None:
    """Keep which machines worked in the latest attempt."""
    folder.write_json(CLUSTER_FILE, {"ray": ray.__version__, "real_s": round(real_s, 3), "nodes": crew.nodes})
