"""What a model asks of a node: CPUs are threads, small models share a GPU, a large one has several."""

import pytest

from llmjobs.cluster import resources
from llmjobs.cluster.resources import GIB, Demand, Nodes, demands
from llmjobs.manifest import ModelSpec
from llmjobs.work.folder import Revisions, RunFolder

H100 = Nodes(cpus=16.0, gpus=8.0, gpu_cpus=4.0, gpu_bytes=80 * GIB)
CPU = Nodes(cpus=16.0)


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """The demand of a model whose 16-bit files have so many GiB."""

    def asked(gib, nodes, threads="auto", whole_nodes=False, **settings):
        monkeypatch.setattr(resources, "weight_file_bytes", lambda spec, located: int(gib * GIB))
        spec = ModelSpec(id="llmjobs/demo-tiny", **settings)
        revisions = Revisions.of(RunFolder(tmp_path), writes=False)
        return demands({"m": spec}, threads, revisions, nodes, whole_nodes=whole_nodes)["m"]

    return asked


@pytest.mark.parametrize(
    "gib, settings, gpus",
    [
        (2, {}, 0.125),
        (14, {}, 0.25),
        (14, {"quantization": "4bit"}, 0.125),
        (14, {"dtype": "float32"}, 0.5),
        (60, {}, 1.0),
        (140, {}, 1.0),  # it will not fit, and says so when it is loaded
        (140, {"device_map": "auto"}, 3.0),
        (1400, {"device_map": "auto"}, 8.0),
        (14, {"device": "cpu"}, 0.0),
    ],
)
def test_gpus(ask, gib, settings, gpus):
    assert ask(gib, H100, **settings).gpus == gpus


def test_a_gpu_brings_its_share_of_cpus_and_threads_are_cpus():
    spec = ModelSpec(id="x/y")
    assert Nodes.of([{"CPU": 32.0, "GPU": 8.0}, {"CPU": 8.0}], lambda: GIB) == Nodes(8.0, 8.0, 4.0, GIB)
    assert spec.device == "auto"


def test_cpus(ask):
    assert ask(2, CPU).cpus == 16.0
    assert ask(2, CPU, threads=4).cpus == 4.0
    assert ask(2, H100).cpus == 1.0
    assert ask(60, H100).cpus == 4.0


def test_memory_is_in_powers_of_two_so_that_workers_serve_several_models(ask):
    assert ask(0.001, CPU).memory_bytes == 2 * GIB
    assert ask(2, CPU).memory_bytes == 8 * GIB
    assert ask(2.2, CPU).memory_bytes == 8 * GIB


def test_the_matrix_has_nodes_to_itself(ask):
    asked = ask(2, H100, whole_nodes=True, device="cuda")
    assert (asked.cpus, asked.gpus) == (16.0, 1.0)


def test_a_node_that_could_hold_it():
    demand = Demand(2.0, 1.0, GIB)
    assert demand.fits({"CPU": 2.0, "GPU": 1.0, "memory": 2.0 * GIB})
    assert not demand.fits({"CPU": 64.0, "memory": 2.0 * GIB})
    assert str(demand) == "2 CPU, 1 GPU, 1.0 GiB"
