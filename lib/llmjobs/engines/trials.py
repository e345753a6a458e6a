"""What this machine can compute, asked of a child process, and the cached results of trials of a model. No torch.

If a child process crashes, that is a result too. A cached result belongs to one model (its files' revision), the
settings that it was loaded with, one machine, the versions of the packages, and the engine's code. Anything else has a
different entry, so results are never transferred.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from llmjobs import disk
from llmjobs.engines.registry import why_unavailable
from llmjobs.environment import describe_machine
from llmjobs.errors import LlmjobsError, RunFolderError
from llmjobs.machine.child import Ended, describe_end, run_child
from llmjobs.manifest.engines import ENGINES

MODULE = "llmjobs.engines.transformers.machine_probe"
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


log = logging.getLogger(__name__)
FOLDER = "models"


def cache_folder() -> Path:
    """``LLMJOBS_CACHE``, otherwise ``llmjobs`` in the user's cache folder."""
    if own := os.environ.get("LLMJOBS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "llmjobs"


@cache
def engine_digest() -> str:
    """Digest of the engines' source, so that a changed build repeats the trials."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        total.update(f"{path.name}\0".encode() + path.read_bytes())
    return total.hexdigest()[:16]


class Known:
    """One model's entry. If it is damaged or somebody else's, nothing is known."""

    def __init__(self, **key: Any) -> None:
        """``key`` describes what is loaded and how: id, revision, device and its name, dtype, quantization, threads."""
        self.key = json.loads(json.dumps(dict(key) | describe_machine() | {"engine": engine_digest()}, sort_keys=True))
        self.digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:32]
        self.path = cache_folder() / FOLDER / f"{self.digest}.json"

    def get(self, name: str) -> dict[str, Any] | None:
        """Return what is stored as ``name``; None if nothing is stored or it cannot be read."""
        found = self._read().get(name)
        return found if isinstance(found, dict) else None

    def put(self, name: str, found: Mapping[str, Any]) -> None:
        """Store it. If the folder cannot be written, the next run repeats the trial."""
        try:
            whole = {"for": self.key, "found": self._read() | {name: dict(found)}}
            disk.make_folder(self.path.parent)
            disk.write_whole(self.path, json.dumps(whole, indent=1, sort_keys=True).encode())
        except (OSError, RunFolderError) as error:
            log.debug("%s: could not be saved: %s", self.path, error)

    def _read(self) -> dict[str, Any]:
        try:
            whole = json.loads(disk.read_whole(self.path))
            if whole["for"] != self.key:
                raise ValueError("it was written for other settings")
            return dict(whole["found"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.info("%s is ignored: %s", self.path, error)
            return {}
