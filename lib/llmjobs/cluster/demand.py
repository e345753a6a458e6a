"""What the units of a group ask of the machine that runs them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Demand:
    """Ray's resources for one worker, and how heavy an item is beside those of other groups."""

    cpus: float = 1.0
    gpus: float = 0.0
    """A fraction where several models fit one GPU."""
    memory_bytes: int = 0
    weight: float = field(default=1.0, compare=False)
    """Only ever compared: bytes of the weights will do."""

    def options(self) -> dict[str, float]:
        """As Ray's ``options`` take it."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory_bytes}

    def fits(self, resources: dict[str, float]) -> bool:
        """Whether a node with these resources could ever hold it."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_bytes}
        return all(resources.get(name, 0.0) >= amount for name, amount in asked.items())

    def __str__(self) -> str:
        """``2 CPUs, 0.5 GPU, 1.5 GiB``."""
        parts = [f"{self.cpus:g} CPU"] + ([f"{self.gpus:g} GPU"] if self.gpus else [])
        return ", ".join([*parts, f"{self.memory_bytes / 2**30:.1f} GiB"])
