"""Doctor's checks of the machine: devices, number formats, quantization, packages, memory, clocks, counters."""

import contextlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from llmjobs import __version__
from llmjobs.clocks import cpu_step_s
from llmjobs.engines.machine_probe import Verdict, probe_machine
from llmjobs.environment import cpu_name
from llmjobs.errors import DataError, LlmjobsError
from llmjobs.fetch import ROOM_TO_SPARE_BYTES
from llmjobs.hub.files import size_text
from llmjobs.hub.repositories import repo_folder
from llmjobs.machine.cpu_counters import CpuCounters
from llmjobs.machine.energy import Unreadable, nvml_counter, rapl_counters
from llmjobs.manifest.engine_names import ENGINES, PACKAGES, engine_name
from llmjobs.matrix.cells import Cell, make_cells
from llmjobs.memory import available_bytes, memory_bytes
from llmjobs.prepare.doctor_result import Check, Checkup, asked_of, layer_of
from llmjobs.quantization import METHODS
from llmjobs.terminal_text import gib, plural


def check_disk(checkup: Checkup) -> Iterator[Check]:
    """Free space for the cache, compared with the downloads, and for the results."""
    cache = repo_folder("model", "x").parent
    for what, folder, need in (("cache", cache, checkup.missing_bytes), ("results", checkup.results, 0)):
        free = shutil.disk_usage(_existing(folder)).free
        line = f"{size_text(free)} free for {folder}"
        if need + ROOM_TO_SPARE_BYTES > free:
            wanted = f", {size_text(need)} to download" if need else ""
            other = "set HF_HOME to another disk" if what == "cache" else "use --results"
            remedy = f"free some space, or {other}"
            yield Check(f"disk ({what})", "failed" if need else "warning", line + wanted, remedy)
        else:
            yield Check(f"disk ({what})", "ok", line + (f", {size_text(need)} needed" if need else ""))


def _existing(folder: Path) -> Path:
    return next((f for f in (folder, *folder.absolute().parents) if f.exists()), Path("/"))


# These checks probe what a device can do instead of looking it up.

DEVICES = ("cuda", "mps", "cpu")
DTYPES = ("float32", "bfloat16", "float16")
NAMES = {"cuda": "CUDA", "mps": "Apple GPU", "cpu": "CPU"}


def probe(checkup: Checkup) -> None:
    """Fill in what this machine can compute; :func:`check_devices` reports a machine that cannot be probed."""
    general = [(device, dtype, "none") for device in DEVICES for dtype in DTYPES]
    general += [(device, "auto", quantization) for device in DEVICES for quantization in METHODS]
    asked = [layer_of(model, [device]) for model in checkup.models for device in DEVICES]
    if checkup.study and checkup.study.matrix and checkup.study.matrix.rungs:
        with contextlib.suppress(DataError):
            asked += [cell.layer for cell in make_cells(checkup.study) if not cell.error]
    try:
        checkup.machine = probe_machine([*general, *asked], DEVICES[:2])
    except LlmjobsError as error:
        checkup.probe_error = str(error)


def check_devices(checkup: Checkup) -> Iterator[Check]:
    """Each device with its memory, or why it is not there."""
    if checkup.probe_error:
        yield Check("devices", "failed", checkup.probe_error, "reinstall torch in a new environment")
        return
    wanted = {device: name for (device, _, _), name in checkup.needed().items()}
    for device in DEVICES[:2]:
        found = checkup.machine.devices[device]
        if "reason" not in found:
            yield Check(NAMES[device], "ok", _describe(device, checkup))
        elif device in wanted:
            remedy = f"use device: auto or cpu for {wanted[device]}, or another machine"
            yield Check(NAMES[device], "failed", f"{found['reason']}, but {wanted[device]} needs it", remedy)
        elif device == "cuda" and _driver_is_here():
            line = f"{found['reason']}, but an NVIDIA driver is installed"
            yield Check(
                NAMES[device], "warning", line, "install torch's CUDA build, or start the container with --gpus all"
            )
        else:
            yield Check(NAMES[device], "ok", f"not available: {found['reason'].partition(': ')[2] or found['reason']}")


def _describe(device: str, checkup: Checkup) -> str:
    found = checkup.machine.devices[device]
    line = f"{found['name']}, {gib(found.get('memory_bytes'))}"
    if device == "cuda":
        several = f", {found['count']} of them" if found["count"] > 1 else ""
        bfloat16 = "supports" if found["bfloat16"] else "does not support"
        line += f" ({gib(found['free_bytes'])} free), compute capability {found['capability']}, "
        line += f"{bfloat16} bfloat16{several}"
    return line


def _driver_is_here() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def check_number_formats(checkup: Checkup) -> Iterator[Check]:
    """Which number formats each device supports."""
    for device in checkup.machine.available():
        verdicts = {dtype: checkup.machine.layers[device, dtype, "none"] for dtype in DTYPES}
        works = [dtype for dtype, verdict in verdicts.items() if verdict.ok]
        broken = [verdict.reason for verdict in verdicts.values() if not verdict.ok]
        name = f"{NAMES[device]} number formats"
        if broken:
            yield Check(name, "warning", f"{', '.join(works) or 'none'}; {'; '.join(broken)}", "use dtype: auto")
        else:
            yield Check(name, "ok", ", ".join(works))


def check_quantization(checkup: Checkup) -> Iterator[Check]:
    """One layer quantized and run, on each device."""
    needed = checkup.needed()
    for device in checkup.machine.available():
        for quantization, method in METHODS.items():
            verdict = checkup.machine.layers[device, "auto", quantization]
            name = f"{NAMES[device]} {quantization}"
            users = [m for (d, _, q), m in needed.items() if (d, q) == (device, quantization)]
            if verdict.ok:
                yield Check(name, "ok", f"works; a quantized layer differs from float32 by {verdict.figure or 0:.1%}")
            elif users:
                remedy = f"use quantization: none for {users[0]}"
                yield Check(name, "failed", f"{verdict.reason}, but {users[0]} needs it", remedy)
            elif device not in method.devices:
                yield Check(name, "ok", f"not available: {verdict.reason}")
            elif method.optional and find_spec(method.package) is None:
                yield Check(name, "ok", f"not installed; only quantization: {quantization} needs {method.package}")
            else:
                yield Check(name, "warning", verdict.reason, f"pip install --upgrade {method.install}")


def check_agreement(checkup: Checkup) -> Iterator[Check]:
    """A small model on each GPU against the CPU, because a faulty kernel gives wrong scores without an error."""
    for device, verdict in checkup.machine.parity.items():
        if device not in checkup.machine.available():
            continue
        name = f"{NAMES[device]} against CPU"
        if verdict.ok:
            line = f"a small model gives the same log-probabilities (largest difference {verdict.figure:.1g} nats)"
            yield Check(name, "ok", line)
        else:
            far = f"differs by {verdict.figure:.3g} nats" if verdict.figure is not None else verdict.reason
            used = any(layer[0] == device for layer in checkup.needed())
            yield Check(
                name,
                "failed" if used else "warning",
                f"a small model {far}",
                "do not trust scores from this device; use device: cpu",
            )


def _computes(checkup: Checkup, dtype: str) -> bool:
    return dtype == "bfloat16" and bool(checkup.machine.devices.get("cpu", {}).get("bfloat16"))


def check_manifest_precisions(checkup: Checkup) -> Iterator[Check]:
    """What each model of the manifest will run on, and how many kinds of matrix cells can run."""
    for model in checkup.models:
        layer = layer_of(model, checkup.machine.available())
        verdict = checkup.machine.layers.get(layer)
        where = f"{NAMES[layer[0]]}, {layer[2] if layer[2] != 'none' else 'not quantized'}"
        slow = model.dtype in ("bfloat16", "float16") and layer[0] == "cpu"
        if asked_of(model) in checkup.unusable:
            line = f"cannot run as it is; it would run on {where}"
            yield Check(f"model {model.name}", "failed", line, f"see weights of {model.name}")
        elif verdict and verdict.ok and slow and not _computes(checkup, model.dtype):
            line = f"will run on {where}, {model.dtype}, for which this processor has no instructions"
            remedy = "use dtype: auto or float32, which is several times faster"
            yield Check(f"model {model.name}", "warning", line, remedy)
        elif verdict and verdict.ok:
            dtype = f", {verdict.dtype}" if verdict.dtype else ""
            yield Check(f"model {model.name}", "ok", f"will run on {where}{dtype}")
        elif verdict and layer[2] in ENGINES:
            yield Check(f"model {model.name}", "failed", verdict.reason)
        elif verdict and layer[0] in checkup.machine.available():
            yield Check(f"model {model.name}", "failed", verdict.reason, "choose another device, dtype or quantization")
    if checkup.study and checkup.study.matrix:
        yield _check_cells(checkup, make_cells(checkup.study))


def _check_cells(checkup: Checkup, cells: list[Cell]) -> Check:
    """How many kinds of cells can run; for a matrix with ``precisions``, which ones cannot and why."""
    known = checkup.machine.layers
    if not any(cell.precision for cell in cells):
        layers = dict.fromkeys(cell.layer for cell in cells)
        empty = [layer for layer in layers if layer in known and not known[layer].ok]
        line = f"{len(layers) - len(empty)} of {len(layers)} kinds of cells can run here"
        line += "; the table will give the reason for the others" if empty else ""
        return Check("matrix", "ok" if len(empty) < len(layers) else "failed", line)
    reasons = ((cell.name, cell.error or known.get(cell.layer, Verdict(True)).reason) for cell in cells)
    why = {name: reason for name, reason in reasons if reason}
    line = f"{len(cells) - len(why)} of {len(cells)} cells can run here"
    for reason in dict.fromkeys(why.values()):
        line += f"; {', '.join(name for name in why if why[name] == reason)}: {reason}"
    return Check("matrix", "ok" if len(why) < len(cells) else "failed", line)


LITTLE_MEMORY = 4 << 30


def check_packages(_: Checkup) -> Iterator[Check]:
    """Whether every required package is installed in a suitable version."""
    wrong, shown = [], []
    for text in requires("llmjobs") or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} is {found}, but {wanted.specifier} is required")
        if wanted.name in ("torch", "transformers", "bitsandbytes"):
            shown.append(f"{wanted.name} {found}")
    if wrong:
        yield Check("packages", "failed", "; ".join(wrong), "run 'pip install --upgrade llmjobs' in a new environment")
        return
    yield Check("packages", "ok", f"llmjobs {__version__}, Python {platform.python_version()}, {', '.join(shown)}")


def check_engines(checkup: Checkup) -> Iterator[Check]:
    """The additional package, if any, of each engine that a model of the manifest runs on."""
    users: dict[str, str] = {}
    for model in checkup.models:
        users.setdefault(engine_name(model.engine, model.id), model.name)
    for engine, user in users.items():
        if engine not in PACKAGES:
            continue
        package, remedy = PACKAGES[engine]
        if find_spec(package) is None:
            yield Check(f"engine {engine}", "failed", f"not installed, but {user} needs it", remedy)
        else:
            yield Check(f"engine {engine}", "ok", "installed")


def check_processor(checkup: Checkup) -> Iterator[Check]:
    """Name, cores and vector instructions."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = min(psutil.cpu_count(logical=False) or allowed, allowed)
    found = checkup.machine.devices.get("cpu", {})
    abilities = f", {found['capability']}" if found.get("capability") else ""
    bfloat16 = ", bfloat16 in hardware" if found.get("bfloat16") else ""
    yield Check("processor", "ok", f"{cpu_name()}, {allowed} threads on {physical} cores{abilities}{bfloat16}")


def check_memory(_: Checkup) -> Iterator[Check]:
    """Total and free memory of the machine or its container."""
    total, free = memory_bytes(), available_bytes()
    line = f"{gib(free)} of {gib(total)} free"
    if free < LITTLE_MEMORY:
        yield Check("memory", "warning", line, "close other programs; models up to about 1 B in 4bit fit")
    else:
        yield Check("memory", "ok", line)


def check_clocks(_: Checkup) -> Iterator[Check]:
    """The clocks that times are read from, and the processor's own counters."""
    resolution = time.get_clock_info("monotonic").resolution
    if resolution > 1e-3:
        yield Check(
            "clock", "warning", f"wall time in steps of {resolution:g} s", "measure longer, or use another machine"
        )
    else:
        step_s = cpu_step_s()
        cpu = f"in steps of {step_s:.1g} s" if step_s else "whose steps could not be found"
        yield Check("clock", "ok", f"wall time in steps of {resolution:g} s, CPU time {cpu}")
    with CpuCounters() as counters:
        found = counters.read()
    if found.reason:
        yield Check(
            "CPU cycles",
            "warning",
            f"not readable: {found.reason}",
            "these fields will be empty (null) in the results; times are not affected",
        )
    else:
        where = "user and kernel mode" if found.kernel_included else "user mode"
        yield Check("CPU cycles", "ok", f"cycles and instructions are readable, {where}")


def check_energy(checkup: Checkup) -> Iterator[Check]:
    """The energy counters of processor and GPU."""
    try:
        packages = len(rapl_counters())
        yield Check("CPU energy", "ok", f"RAPL counters of {plural(packages, 'processor package')}")
    except Unreadable as error:
        yield Check(
            "CPU energy",
            "warning",
            str(error),
            "these fields will be empty (null) in the results; nothing is estimated",
        )
    if "cuda" in checkup.machine.available():
        try:
            nvml_counter(str(checkup.machine.devices["cuda"].get("uuid") or "") or None)
            yield Check("GPU energy", "ok", "NVML's energy counter")
        except Unreadable as error:
            yield Check(
                "GPU energy",
                "warning",
                str(error),
                "these fields will be empty (null) in the results; nothing is estimated",
            )


def check_results_folder(checkup: Checkup) -> Iterator[Check]:
    """Whether the results folder is writable."""
    folder = checkup.results
    there = next((f for f in (folder, *folder.absolute().parents) if f.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=there) as stream:
            stream.write(b"\0" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        line = f"{there} is not writable: {error.strerror or error}"
        yield Check("results folder", "failed", line, "fix that, or choose another folder with --results")
    else:
        yield Check("results folder", "ok", f"{folder} is writable")
