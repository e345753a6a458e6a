"""The resources that each model needs on a node, computed from its files before anything is loaded."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmjobs.engines.locate import Located
from llmjobs.engines.registry import weight_file_bytes
from llmjobs.errors import LlmjobsError
from llmjobs.fetch import model_item
from llmjobs.manifest import ModelSpec
from llmjobs.quantization import METHODS
from llmjobs.work.folder import Revisions


@dataclass(frozen=True)
class Demand:
    """Ray's resources for one worker, and the weight of an item compared with those of other groups."""

    cpus: float = 1.0
    gpus: float = 0.0
    """A fraction if several models share a GPU."""
    memory_bytes: int = 0
    weight: float = field(default=1.0, compare=False)
    """Only compared with other weights, so the model's bytes are accurate enough."""

    def options(self) -> dict[str, float]:
        """Keyword arguments for Ray's ``options``."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory_bytes}

    def fits(self, resources: dict[str, float]) -> bool:
        """Whether a node with these resources could ever run it."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_bytes}
        return all(resources.get(name, 0.0) >= amount for name, amount in asked.items())

    def __str__(self) -> str:
        """``2 CPUs, 0.5 GPU, 1.5 GiB``."""
        parts = [f"{self.cpus:g} CPU"] + ([f"{self.gpus:g} GPU"] if self.gpus else [])
        return ", ".join([*parts, f"{self.memory_bytes / 2**30:.1f} GiB"])


GIB = 1 << 30
RUNTIME_BYTES = 3 * GIB // 2
"""Python, torch and transformers, with room for a batch."""
UNKNOWN_BYTES = 2 * GIB
"""For a model whose files have an unknown size (loading it will report why)."""
BESIDE = 1.3
"""Keys, values and activations, in addition to the weights."""
PARTS = 8
"""A GPU is shared in eighths; a model that needs more than half gets a whole one."""


@dataclass(frozen=True)
class Nodes:
    """The resources of the cluster's nodes that affect demands."""

    cpus: float
    """CPUs of the smallest node."""
    gpus: float = 0.0
    """Memory of the largest node."""
    gpu_cpus: float = 0.0
    """CPUs per GPU, on the node with the fewest."""
    gpu_bytes: int | None = None
    """Memory of a GPU; None if it is not known."""

    @classmethod
    def of(cls, resources: list[Mapping[str, float]], gpu_bytes: Callable[[], int | None]) -> "Nodes":
        """Read them from Ray's resources; ``gpu_bytes`` is called only if there are GPUs."""
        cpus = [found["CPU"] for found in resources if found.get("CPU")]
        having = [found for found in resources if found.get("GPU")]
        if not having:
            return cls(min(cpus, default=1.0))
        shares = [found.get("CPU", 1.0) / found["GPU"] for found in having]
        return cls(min(cpus, default=1.0), max(found["GPU"] for found in having), min(shares), gpu_bytes())


def demands(
    models: Mapping[str, ModelSpec], threads: int | str, revisions: Revisions, nodes: Nodes, *, whole_nodes: bool
) -> dict[str, Demand]:
    """The demand of each group of units; with ``whole_nodes``, nothing else may run on the same node (the matrix)."""
    found = {}
    for group, spec in models.items():
        located = None if spec.endpoint else revisions.locate(spec)[0]
        demand = _demand(spec, _file_bytes(spec, located), threads, nodes)
        found[group] = Demand(nodes.cpus, math.ceil(demand.gpus), demand.memory_bytes) if whole_nodes else demand
    return found


def _file_bytes(spec: ModelSpec, located: Located | None) -> int:
    if located is None:
        return 0
    try:
        size = weight_file_bytes(spec, located)
        item = None if size else model_item(spec)
    except LlmjobsError:
        return UNKNOWN_BYTES
    return size or (item.total_bytes if item else 0) or UNKNOWN_BYTES


def _demand(spec: ModelSpec, file_bytes: int, threads: int | str, nodes: Nodes) -> Demand:
    weight = float(max(file_bytes, 1))
    if spec.device == "cuda" or (spec.device == "auto" and nodes.gpus):
        gpus = _gpus(spec, file_bytes, nodes)
        cpus = float(threads) if isinstance(threads, int) else max(math.floor(nodes.gpu_cpus * gpus), 1.0)
        return Demand(cpus, gpus, _rounded(2 * RUNTIME_BYTES), weight)
    cpus = float(threads) if isinstance(threads, int) else nodes.cpus
    # 16-bit files may be computed in float32; a quantized model keeps its files mapped as well
    return Demand(cpus, 0.0, _rounded(RUNTIME_BYTES + int(2 * file_bytes)), weight)


def _gpus(spec: ModelSpec, file_bytes: int, nodes: Nodes) -> float:
    """GPUs of one worker: an eighth or more, one, or several if the manifest spreads the model over them."""
    spreads = spec.device_map == "auto"
    if not nodes.gpu_bytes:
        return max(nodes.gpus, 1.0) if spreads else 1.0
    wide = 2.0 if spec.dtype == "float32" and spec.quantization == "none" else 1.0
    method = METHODS.get(spec.quantization)
    gpu_share = method.gpu_share if method else 1.0
    share = (file_bytes * wide * gpu_share * BESIDE + RUNTIME_BYTES) / nodes.gpu_bytes
    if share > 1 and spreads:
        return float(min(math.ceil(share), max(int(nodes.gpus), 1)))
    return 1.0 if share > 0.5 else math.ceil(share * PARTS) / PARTS


def _rounded(size: int) -> int:
    """Round up to a power of two times half a GiB, so one kind of worker serves models of similar size."""
    steps = math.ceil(math.log2(max(size / (GIB // 2), 1)))
    return (GIB // 2) << steps


def gpu_memory_bytes() -> int | None:
    """Memory of the GPU that this process may use; called on a node that has one."""
    import torch

    properties: Any = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return int(properties.total_memory) if properties else None
