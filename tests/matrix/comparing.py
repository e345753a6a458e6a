"""Both sides of a comparison in this process: the reference's distributions, and a precision compared with them."""

from pathlib import Path
from typing import Any

from llmjobs.manifest import ModelSpec
from llmjobs.matrix.divergence_process import run_side

SECTION = {"chunks": 3, "context": 128, "prompts": 4}
"""Small, so that a test takes seconds."""


class Phases:
    """Collects what the process reports; ``stop_at`` raises where a phase of that name begins."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.names: list[str] = []
        self.stop_at = stop_at

    def phase(self, name: str) -> None:
        self.names.append(name)
        if self.stop_at and self.stop_at in name:
            raise KeyboardInterrupt


def task_of(folder: Path, model: dict[str, Any], **more: Any) -> dict[str, Any]:
    spec = ModelSpec.model_validate({"device": "cpu"} | model)
    return {
        "model": spec.model_dump(mode="json"),
        "threads": 1,
        "date": None,
        "seed": 0,
        "benchmarks": [{"name": "demo", "subjects": ["number_size", "letters"], "limit": 3}],
        "divergence": SECTION,
        "folder": str(folder),
        **more,
    }


def write(folder: Path, model: dict[str, Any], phases: Phases | None = None, **more: Any) -> dict[str, Any]:
    """Write the reference's distributions."""
    return run_side(task_of(folder, model, mode="reference", **more), phases or Phases())  # type: ignore[arg-type]


def compare(
    folder: Path,
    model: dict[str, Any],
    parts: Path,
    reference: dict[str, Any],
    phases: Phases | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Compare a model with them."""
    expected = {f"{one['source']}-{one['index']:04d}": one["sha256"] for one in reference["records"]}
    task = task_of(folder, model, mode="compare", parts=str(parts), expected=expected, **more)
    return run_side(task, phases or Phases())  # type: ignore[arg-type]


def mean_kl(result: dict[str, Any], source: str = "text") -> float:
    """Over all positions of a source."""
    values = [one for record in result["records"] if record["source"] == source for one in record["kl"]]
    return sum(values) / len(values)
