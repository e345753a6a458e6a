"""What a check of the doctor gives, and what it may look at."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from llmjobs.engines.probing import Layer, Machine
from llmjobs.errors import LlmjobsError, printable
from llmjobs.fetch import walk
from llmjobs.manifest import Manifest, ModelSpec
from llmjobs.manifest.mtbench import RULE_JUDGE
from llmjobs.redaction import redacted

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it is, and what to do where it is not well."""

    name: str
    status: Status
    line: str
    remedy: str = ""

    def to_record(self) -> dict[str, str]:
        """Plain values for ``--json``."""
        return asdict(self)


@dataclass
class Checkup:
    """The machine with what is asked of it."""

    study: Manifest | None
    results: Path
    machine: Machine = field(default_factory=Machine)
    probe_error: str | None = None
    """Why the probes could not run at all."""
    hub_silent: str | None = None
    """Why the hub is not asked; None where it answers."""
    unusable: set[tuple[str, str | None]] = field(default_factory=set)
    """Id and revision of the models whose files cannot be had."""
    missing_bytes: int = 0
    """What the manifest's downloads still need."""

    @property
    def models(self) -> list[ModelSpec]:
        """Every local model of the manifest, judges too, each once."""
        found = walk(self.study, ModelSpec) if self.study else ()
        return list({(m.id, m.revision, m.name): m for m in found if not m.endpoint and m.id != RULE_JUDGE}.values())

    def needed(self) -> dict[Layer, str]:
        """What has to compute for the manifest's models, with the model's name; the matrix needs nothing."""
        return {layer_of(model, self.machine.available()): model.name for model in self.models}


def layer_of(model: ModelSpec, available: Iterable[str]) -> Layer:
    """Device, dtype and quantization that a model will have here; ``auto`` as ``models.device`` takes it."""
    device = model.device
    if device == "auto":
        fits = (d for d in available if d != "mps" or model.quantization == "none")
        return (next(fits, "cpu"), model.dtype, model.quantization)
    return (device, model.dtype, model.quantization)


CheckFunction = Callable[[Checkup], Iterable[Check]]


def run_check(function: CheckFunction, checkup: Checkup) -> list[Check]:
    """Run one check; what it cannot do is a line too."""
    name = function.__name__.removeprefix("check_").replace("_", " ")
    try:
        return [_harmless(check) for check in function(checkup)]
    except LlmjobsError as error:
        return [Check(name, "failed", str(error))]
    except Exception as error:
        text = printable(" ".join(str(error).split()))[:200] or "no reason given"
        return [
            Check(name, "warning", f"could not be checked: {text}", "say so in a bug report, with llmjobs -v doctor")
        ]


def _harmless(check: Check) -> Check:
    """Return it as it may be printed: servers' and drivers' words shown, not obeyed, and no key in them."""
    line, remedy = (printable(redacted(text)) for text in (check.line, check.remedy))
    return replace(check, line=line, remedy=remedy)


def to_json(checks: Iterable[Check]) -> dict[str, Any]:
    """All checks as one value."""
    records = [check.to_record() for check in checks]
    worst = next((s for s in ("failed", "warning") if any(r["status"] == s for r in records)), "ok")
    return {"status": worst, "checks": records}
