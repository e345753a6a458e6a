"""The result of one check of the doctor, and the state that all checks share."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from llmjobs.engines.machine_probe import Layer, Machine
from llmjobs.engines.registry import devices
from llmjobs.errors import LlmjobsError, printable
from llmjobs.fetch import walk
from llmjobs.manifest import Manifest, ModelSpec
from llmjobs.manifest.engine_names import engine_name
from llmjobs.manifest.matrix import gguf_models
from llmjobs.manifest.mtbench import RULE_JUDGE
from llmjobs.redaction import redacted

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """One line: what was checked, the result, and the remedy if there is a problem."""

    name: str
    status: Status
    line: str
    remedy: str = ""

    def to_record(self) -> dict[str, str]:
        """Plain values for ``--json``."""
        return asdict(self)


@dataclass
class Checkup:
    """The machine, the manifest, and what the checks found out so far."""

    study: Manifest | None
    results: Path
    machine: Machine = field(default_factory=Machine)
    probe_error: str | None = None
    """Why the probes could not run at all."""
    hub_silent: str | None = None
    """Why the hub cannot be asked; None if it answers."""
    unusable: set[str] = field(default_factory=set)
    """What :func:`asked_of` gives for the models that cannot run."""
    counted: set[tuple[str, str | None]] = field(default_factory=set)
    """Id and revision of the models whose bytes are among :attr:`missing_bytes`."""
    missing_bytes: int = 0
    """Bytes that the manifest still has to download."""

    @property
    def models(self) -> list[ModelSpec]:
        """Every local model of the manifest, judges too, each once."""
        found = [*walk(self.study, ModelSpec)] if self.study else []
        if self.study and self.study.matrix:
            found += gguf_models(self.study.models, self.study.matrix.rungs)
        return list({(m.id, m.revision, m.name): m for m in found if not m.endpoint and m.id != RULE_JUDGE}.values())

    def needed(self) -> dict[Layer, str]:
        """Layers that must work for the manifest's models, with the model's name; the matrix requires none."""
        return {layer_of(model, self.machine.available()): model.name for model in self.models}


def asked_of(model: ModelSpec) -> str:
    """Everything that a manifest asks of a model but its name: two precisions of one repository are two things."""
    return model.model_dump_json(exclude={"name"})


def layer_of(model: ModelSpec, available: Iterable[str]) -> Layer:
    """What has to work for a model here; a device ``auto`` is resolved as in ``models.device``."""
    device = model.device
    if (engine := engine_name(model.engine, model.id)) != "transformers":
        own = devices([model])
        return (next((one for one in own if one in available), "cpu") if device == "auto" else device, "auto", engine)
    if device == "auto":
        fits = (d for d in available if d != "mps" or model.quantization == "none")
        return (next(fits, "cpu"), model.dtype, model.quantization)
    return (device, model.dtype, model.quantization)


CheckFunction = Callable[[Checkup], Iterable[Check]]


def run_check(function: CheckFunction, checkup: Checkup) -> list[Check]:
    """Run one check; if it fails itself, that is a line too."""
    name = function.__name__.removeprefix("check_").replace("_", " ")
    try:
        return [_harmless(check) for check in function(checkup)]
    except LlmjobsError as error:
        return [Check(name, "failed", str(error))]
    except Exception as error:
        text = printable(" ".join(str(error).split()))[:200] or "no reason given"
        return [
            Check(
                name,
                "warning",
                f"could not be checked: {text}",
                "please report it, with the output of llmjobs -v doctor",
            )
        ]


def _harmless(check: Check) -> Check:
    """Return it in printable form, without a server's or driver's control characters and without keys."""
    line, remedy = (printable(redacted(text)) for text in (check.line, check.remedy))
    return replace(check, line=line, remedy=remedy)


def to_json(checks: Iterable[Check]) -> dict[str, Any]:
    """All checks as one mapping, with the worst status."""
    records = [check.to_record() for check in checks]
    worst = next((s for s in ("failed", "warning") if any(r["status"] == s for r in records)), "ok")
    return {"status": worst, "checks": records}
