"""Ask a child process what this machine can compute; if a probe crashes, that is a result too. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmjobs.engines.registry import why_unavailable
from llmjobs.errors import LlmjobsError
from llmjobs.machine.child import Ended, describe_end, run_child
from llmjobs.manifest.engine_names import ENGINES

MODULE = "llmjobs.engines.transformers.machine_probe_child"
Layer = tuple[str, str, str]
"""Device, dtype (may be ``auto``), quantization. For other engines than transformers, the third entry is the engine's
name: the engine has to work on the device.
"""
PROBE_S = 300.0


@dataclass(frozen=True)
class Verdict:
    """Whether something works here; the ``dtype`` in which it computed, or the ``reason`` why it does not work."""

    ok: bool
    reason: str = ""
    dtype: str | None = None
    figure: float | None = None


@dataclass
class Machine:
    """What the probes found."""

    devices: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    layers: dict[Layer, Verdict] = field(default_factory=dict)
    parity: dict[str, Verdict] = field(default_factory=dict)
    torch: str | None = None

    def available(self) -> list[str]:
        """Available devices."""
        return [name for name, found in self.devices.items() if "reason" not in found]


def probe_machine(layers: Sequence[Layer], parity: Sequence[str] = ()) -> Machine:
    """Try every layer and parity check.

    Raises:
        LlmjobsError: torch cannot be imported; the line says why.

    """
    machine = Machine()
    layers, parity = list(dict.fromkeys(layers)), list(dict.fromkeys(parity))
    for layer in layers:
        if layer[2] in ENGINES:
            why = why_unavailable(layer[2], layer[0])
            machine.layers[layer] = Verdict(why is None, why or "")
    while True:
        todo = [one for one in layers if one not in machine.layers]
        left = [one for one in parity if one not in machine.parity]
        ended = run_child(MODULE, {"layers": todo, "parity": left}, timeout_s=PROBE_S)
        _take(machine, ended)
        if ended.result is not None:
            machine.torch = str(ended.result["torch"])
            return machine
        trying = next((line["trying"] for line in reversed(ended.lines) if "trying" in line), None)
        why = describe_end(ended)
        if trying is None or not machine.devices:
            raise LlmjobsError(
                f"this machine cannot be probed: {why}; run 'python -m pip check' to find broken packages"
            )
        if trying[0] == "parity":
            machine.parity[trying[1]] = Verdict(False, f"the check {why}")
        else:
            machine.layers[tuple(trying)] = Verdict(False, f"the probe {why}")


def _take(machine: Machine, ended: Ended) -> None:
    for line in ended.lines:
        if "devices" in line:
            machine.devices = dict(line["devices"])
        elif "layer" in line:
            device, dtype, quantization = line["layer"]
            found = line["verdict"]
            machine.layers[device, dtype, quantization] = Verdict(
                found["ok"], found.get("reason", ""), found.get("dtype"), found.get("error")
            )
        elif "parity" in line:
            found = line["verdict"]
            machine.parity[line["parity"]] = Verdict(
                found["ok"], found.get("reason", ""), figure=found.get("max_difference_nats")
            )
