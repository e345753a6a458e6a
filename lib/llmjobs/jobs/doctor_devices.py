"""Checks of what computes: devices, number formats, quantization, agreement with the CPU; probed, not looked up."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from llmjobs.errors import LlmjobsError
from llmjobs.jobs.doctor_check import Check, Patient, settle
from llmjobs.jobs.matrix_cells import make_cells
from llmjobs.jobs.matrix_table import gib
from llmjobs.measuring.probing import Layer, probe_machine

DEVICES = ("cuda", "mps", "cpu")
DTYPES = ("float32", "bfloat16", "float16")
QUANTIZATIONS = ("8bit", "4bit")
NAMES = {"cuda": "CUDA", "mps": "Apple GPU", "cpu": "CPU"}


def probe(patient: Patient) -> None:
    """Fill in what this machine computes; a machine that cannot be probed is told by :func:`check_devices`."""
    general = [(device, dtype, "none") for device in DEVICES for dtype in DTYPES]
    general += [(device, "auto", quantization) for device in DEVICES for quantization in QUANTIZATIONS]
    asked = [settle(model, [device]) for model in patient.models for device in DEVICES]
    try:
        patient.machine = probe_machine([*general, *asked], DEVICES[:2])
    except LlmjobsError as error:
        patient.probe_error = str(error)


def check_devices(patient: Patient) -> Iterator[Check]:
    """Each device with its memory, or why it is not there."""
    if patient.probe_error:
        yield Check("devices", "failed", patient.probe_error, "install torch anew, in a fresh environment")
        return
    wanted = {device: name for (device, _, _), name in patient.needed().items()}
    for device in DEVICES[:2]:
        found = patient.machine.devices[device]
        if "reason" not in found:
            yield Check(NAMES[device], "ok", _describe(device, patient))
        elif device in wanted:
            remedy = f"device: auto or cpu for {wanted[device]}, or a machine that has it"
            yield Check(NAMES[device], "failed", f"{found['reason']}, and {wanted[device]} asks for it", remedy)
        elif device == "cuda" and _driver_is_here():
            line = f"{found['reason']}, but an NVIDIA driver is installed"
            yield Check(
                NAMES[device], "warning", line, "install a torch built for CUDA, or give the container --gpus all"
            )
        else:
            yield Check(NAMES[device], "ok", f"not here: {found['reason'].partition(': ')[2] or found['reason']}")


def _describe(device: str, patient: Patient) -> str:
    found = patient.machine.devices[device]
    line = f"{found['name']}, {gib(found.get('memory_bytes'))}"
    if device == "cuda":
        several = f", {found['count']} of them" if found["count"] > 1 else ""
        bfloat16 = "computes" if found["bfloat16"] else "does not compute"
        line += f" ({gib(found['free_bytes'])} free), compute capability {found['capability']}, "
        line += f"{bfloat16} bfloat16{several}"
    return line


def _driver_is_here() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def check_number_formats(patient: Patient) -> Iterator[Check]:
    """Which number formats each device computes."""
    for device in patient.machine.available():
        verdicts = {dtype: patient.machine.layers[device, dtype, "none"] for dtype in DTYPES}
        works = [dtype for dtype, verdict in verdicts.items() if verdict.ok]
        broken = [verdict.reason for verdict in verdicts.values() if not verdict.ok]
        name = f"{NAMES[device]} number formats"
        if broken:
            yield Check(name, "warning", f"{', '.join(works) or 'none'}; {'; '.join(broken)}", "use dtype: auto")
        else:
            yield Check(name, "ok", f"computes {', '.join(works)}")


def check_quantization(patient: Patient) -> Iterator[Check]:
    """One layer quantized and run, on each device."""
    needed = patient.needed()
    for device in patient.machine.available():
        for quantization in QUANTIZATIONS:
            verdict = patient.machine.layers[device, "auto", quantization]
            name = f"{NAMES[device]} {quantization}"
            users = [m for (d, _, q), m in needed.items() if (d, q) == (device, quantization)]
            if verdict.ok:
                yield Check(name, "ok", f"a layer was quantized and ran, {verdict.figure or 0:.1%} off float32")
            elif users:
                yield Check(name, "failed", f"{verdict.reason}; {users[0]} asks for it", "quantization: none for it")
            elif device == "mps":
                yield Check(name, "ok", f"not to be had: {verdict.reason}")
            else:
                yield Check(name, "warning", verdict.reason, "pip install --upgrade bitsandbytes")


def check_agreement(patient: Patient) -> Iterator[Check]:
    """A small model on each GPU against the CPU: a wrong kernel gives wrong scores without a word."""
    for device, verdict in patient.machine.parity.items():
        if device not in patient.machine.available():
            continue
        name = f"{NAMES[device]} against CPU"
        if verdict.ok:
            line = f"a small model gives the same log-probabilities (largest difference {verdict.figure:.1g} nats)"
            yield Check(name, "ok", line)
        else:
            far = f"differs by {verdict.figure:.3g} nats" if verdict.figure is not None else verdict.reason
            used = any(layer[0] == device for layer in patient.needed())
            yield Check(
                name,
                "failed" if used else "warning",
                f"a small model {far}",
                "do not trust scores from it; device: cpu",
            )


def _computes(patient: Patient, dtype: str) -> bool:
    return dtype == "bfloat16" and bool(patient.machine.devices.get("cpu", {}).get("bfloat16"))


def check_manifest_precisions(patient: Patient) -> Iterator[Check]:
    """What each model of the manifest will run on, and the cells of its matrix that will stay empty."""
    for model in patient.models:
        layer = settle(model, patient.machine.available())
        verdict = patient.machine.layers.get(layer)
        where = f"{NAMES[layer[0]]}, {layer[2] if layer[2] != 'none' else 'not quantized'}"
        slow = model.dtype in ("bfloat16", "float16") and layer[0] == "cpu" and layer[2] == "none"
        if verdict and verdict.ok and slow and not _computes(patient, model.dtype):
            line = f"will run on {where}, {model.dtype}, which this processor has no instructions for"
            yield Check(f"model {model.name}", "warning", line, "dtype: auto or float32 is several times faster")
        elif verdict and verdict.ok:
            yield Check(f"model {model.name}", "ok", f"will run on {where}, {verdict.dtype}")
        elif verdict and layer[0] in patient.machine.available():
            yield Check(f"model {model.name}", "failed", verdict.reason, "choose another device, dtype or quantization")
    if patient.study and patient.study.matrix:
        layers: dict[Layer, None] = {cell.layer: None for cell in make_cells(patient.study)}
        known = patient.machine.layers
        empty = [layer for layer in layers if layer in known and not known[layer].ok]
        line = f"{len(layers) - len(empty)} of {len(layers)} kinds of cells can run here; the others will say why"
        yield Check("matrix", "ok" if len(empty) < len(layers) else "failed", line)
