"""Where a job's units run: in this process, or on a Ray cluster (``--ray``)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from llmjobs.engines.machine_probe import Layer, Machine, Verdict, probe_machine
from llmjobs.errors import MissingPackageError
from llmjobs.manifest import ModelSpec
from llmjobs.work.folder import Revisions, RunFolder
from llmjobs.work.outcome import Outcome
from llmjobs.work.run import OnRecords, run_job
from llmjobs.work.units import ClusterJob

if TYPE_CHECKING:
    from llmjobs.cluster.resources import Nodes


@dataclass(frozen=True)
class Place:
    """Where a job's units run: in the command's process, or on the cluster that it is connected to."""

    on_cluster: bool = False

    def run(
        self,
        job: ClusterJob,
        folder: RunFolder,
        models: Mapping[str, ModelSpec],
        threads: int | str,
        on_records: OnRecords | None = None,
        *,
        whole_nodes: bool = False,
    ) -> Outcome:
        """Run a job's units: one after the other here, or on all nodes that have room.

        ``models`` maps each group of units to the model that it loads; ``whole_nodes`` gives each unit a whole node.
        """
        if not self.on_cluster:
            return run_job(job, folder, on_records)
        from llmjobs.cluster.resources import demands
        from llmjobs.cluster.run import run_on_cluster

        found = demands(models, threads, Revisions.of(folder), _nodes(), whole_nodes=whole_nodes)
        return run_on_cluster(job, folder, found, on_records)

    def probe(self, layers: Sequence[Layer]) -> Machine:
        """Find out what can be computed there."""
        return _probe_nodes(layers) if self.on_cluster else probe_machine(layers)


def _probe_nodes(layers: Sequence[Layer]) -> Machine:
    """Ask a node with a GPU about what needs one, and any node about the rest. All nodes are assumed to be alike."""
    from llmjobs.cluster.connection import ask_a_node

    nodes, machine = _nodes(), Machine()
    for gpus in (0.0, 1.0):
        wanted = [layer for layer in layers if (layer[0] == "cuda") == bool(gpus)]
        if not wanted:
            continue
        found = ask_a_node(probe_machine, wanted, cpus=1.0, gpus=gpus) if gpus <= nodes.gpus else None
        if found is None:
            nobody = Verdict(False, "no node of the cluster has a GPU" if gpus else "no node had room for a probe")
            machine.layers |= dict.fromkeys(wanted, nobody)
            continue
        machine.layers |= found.layers
        machine.devices |= {
            name: properties for name, properties in found.devices.items() if "reason" not in properties
        }
        machine.torch = found.torch
    return machine


def _nodes() -> "Nodes":
    from llmjobs.cluster.connection import alive_nodes, ask_a_node
    from llmjobs.cluster.resources import Nodes, gpu_memory_bytes

    resources = [node["Resources"] for node in alive_nodes()]
    return Nodes.of(resources, lambda: ask_a_node(gpu_memory_bytes, gpus=0.125))


@contextmanager
def place(ray: str | None) -> Iterator[Place]:
    """Return this process, or the cluster at the address ``ray``.

    Raises:
        MissingPackageError: Ray is not installed.
        ClusterError: there is no cluster at that address.

    """
    if ray is None:
        yield Place()
        return
    if find_spec("ray") is None:
        raise MissingPackageError("--ray needs the ray package; run pip install 'llmjobs[ray]'")
    from llmjobs.cluster.connection import connected

    with connected(ray):
        yield Place(on_cluster=True)
