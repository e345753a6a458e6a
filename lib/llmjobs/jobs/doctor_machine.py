"""Checks of the machine itself: packages, processor, memory, clocks, counters, the results' folder."""

import os
import platform
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from llmjobs import __version__
from llmjobs.environment import cpu_name, memory_bytes
from llmjobs.jobs.doctor_check import Check, Patient
from llmjobs.jobs.matrix_table import gib
from llmjobs.measuring.energy import Unreadable, nvml_counter, rapl_counters
from llmjobs.measuring.memory import available_bytes
from llmjobs.measuring.perf_events import CpuCounters

LITTLE_MEMORY = 4 << 30


def check_packages(_: Patient) -> Iterator[Check]:
    """Every package that llmjobs needs, at the version that it needs."""
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
            wrong.append(f"{wanted.name} is {found}, needed: {wanted.specifier}")
        if wanted.name in ("torch", "transformers", "bitsandbytes"):
            shown.append(f"{wanted.name} {found}")
    if wrong:
        yield Check("packages", "failed", "; ".join(wrong), "pip install --upgrade llmjobs, in a fresh environment")
        return
    yield Check("packages", "ok", f"llmjobs {__version__}, Python {platform.python_version()}, {', '.join(shown)}")


def check_processor(patient: Patient) -> Iterator[Check]:
    """Name, cores and what its instructions compute."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = min(psutil.cpu_count(logical=False) or allowed, allowed)
    found = patient.machine.devices.get("cpu", {})
    abilities = f", {found['capability']}" if found.get("capability") else ""
    bfloat16 = ", bfloat16 in hardware" if found.get("bfloat16") else ""
    yield Check("processor", "ok", f"{cpu_name()}, {allowed} threads on {physical} cores{abilities}{bfloat16}")


def check_memory(_: Patient) -> Iterator[Check]:
    """What the machine or its container has, and what is free now."""
    total, free = memory_bytes(), available_bytes()
    line = f"{gib(free)} of {gib(total)} free"
    if free < LITTLE_MEMORY:
        yield Check("memory", "warning", line, "close other programs; models up to about 1 B in 4bit fit")
    else:
        yield Check("memory", "ok", line)


def check_clocks(_: Patient) -> Iterator[Check]:
    """The clocks that times are read from, and the processor's own counters."""
    resolution = time.get_clock_info("monotonic").resolution
    if resolution > 1e-3:
        yield Check(
            "clock", "warning", f"wall time in steps of {resolution:g} s", "measure longer, or on another machine"
        )
    else:
        yield Check("clock", "ok", f"wall time in steps of {resolution:g} s, CPU time in steps of 0.01 s")
    with CpuCounters() as counters:
        found = counters.read()
    if found.reason:
        yield Check(
            "CPU cycles", "warning", f"not readable: {found.reason}", "results say null; times are not affected"
        )
    else:
        where = "user and kernel mode" if found.kernel_included else "user mode"
        yield Check("CPU cycles", "ok", f"cycles and instructions are readable, {where}")


def check_energy(patient: Patient) -> Iterator[Check]:
    """The energy counters of processor and GPU."""
    try:
        packages = len(rapl_counters())
        yield Check("CPU energy", "ok", f"RAPL counters of {packages} processor package{'s'[: packages > 1]}")
    except Unreadable as error:
        yield Check("CPU energy", "warning", str(error), "results say null; nothing is estimated")
    if "cuda" in patient.machine.available():
        try:
            nvml_counter(str(patient.machine.devices["cuda"].get("uuid") or "") or None)
            yield Check("GPU energy", "ok", "NVML's energy counter")
        except Unreadable as error:
            yield Check("GPU energy", "warning", str(error), "results say null; nothing is estimated")


def check_results_folder(patient: Patient) -> Iterator[Check]:
    """Whether results can be written where they will go."""
    folder = patient.results
    there = next((f for f in (folder, *folder.absolute().parents) if f.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=there) as stream:
            stream.write(b"\0" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        line = f"{there} cannot be written: {error.strerror or error}"
        yield Check("results folder", "failed", line, "free space there, or name another folder with --results")
    else:
        yield Check("results folder", "ok", f"{folder} can be written")
