"""The device and number format of a model, the device's clock, and its memory."""

import gc
import os
import time
from dataclasses import dataclass, field
from functools import cache

import psutil
import torch

from llmjobs.errors import ModelError
from llmjobs.manifest.models import Device, DType
from llmjobs.quantization import METHODS

MAX_THREADS = "LLMJOBS_MAX_THREADS"
"""Environment variable of a cluster's worker: the number of CPUs assigned to it, which limits ``auto``."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def available() -> list[str]:
    """Devices that torch can use here, best first."""
    found = ["cuda"] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def resolve_device(wanted: Device, quantization: str) -> str:
    """The device to load on.

    Raises:
        ModelError: the requested device does not exist.

    """
    devices = available()
    if wanted == "auto":
        # No method has kernels for Apple's GPU, so a quantized model runs on the CPU there, and the record says so.
        return next(d for d in devices if quantization not in METHODS or d in METHODS[quantization].devices)
    if wanted not in devices:
        raise ModelError(f"there is no {wanted} device (found: {', '.join(devices)}); use device: auto or cpu")
    return wanted


def resolve_dtype(wanted: DType, device: str) -> torch.dtype:
    """The number format to compute in: ``auto`` uses what the hardware computes, not what it merely stores."""
    if wanted != "auto":
        return DTYPES[wanted]
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device == "mps":
        return torch.float16
    return torch.bfloat16 if cpu_computes_bfloat16() else torch.float32


def dtype_remark(dtype: torch.dtype, device: str) -> str | None:
    """Return a remark if a number format is slow on this device, otherwise None."""
    if device != "cpu" or dtype == torch.float32 or (dtype == torch.bfloat16 and cpu_computes_bfloat16()):
        return None
    name = str(dtype).removeprefix("torch.")
    return f"this processor has no {name} instructions; use dtype: auto or float32, which is several times faster"


@cache
def cpu_computes_bfloat16() -> bool:
    """Whether this CPU has bfloat16 matrix instructions (AVX-512 BF16, AMX; Arm's BF16)."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    names = ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16")
    if capabilities:
        return any(capabilities.get(name) for name in names)
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


@dataclass
class DeviceClock:
    """Times spans with device events on CUDA; elsewhere it only waits for the device, so that wall time is correct.

    A model may be spread over several GPUs (``device_map: auto``): memory is the sum over all of them. Time is the sum
    of the spans on each GPU, like CPU time over threads, so it exceeds real time if GPUs wait for each other.
    """

    device: str
    _events: list[tuple[int, torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list)
    _each: tuple[tuple[float, int], ...] = ()

    def start(self) -> None:
        """Begin a span."""
        if self.device == "cuda":
            self._events = []
            for index in used_gpus():
                torch.cuda.reset_peak_memory_stats(index)
                with torch.cuda.device(index):
                    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                    begin.record()
                self._events.append((index, begin, end))
        elif self.device == "mps":
            torch.mps.synchronize()

    def stop(self) -> tuple[float | None, int | None]:
        """End it; return seconds by device events and peak bytes, each None if the device has none."""
        if self.device == "cuda":
            for index, _, end in self._events:
                with torch.cuda.device(index):
                    end.record()
            seconds = dict.fromkeys(used_gpus(), 0.0)  # more than at the start, if the model was loaded in between
            for index, begin, end in self._events:
                end.synchronize()
                seconds[index] = begin.elapsed_time(end) / 1000
            self._each = tuple(
                (spent, torch.cuda.max_memory_allocated(index)) for index, spent in sorted(seconds.items())
            )
            return sum(spent for spent, _ in self._each), sum(peak for _, peak in self._each)
        if self.device == "mps":
            torch.mps.synchronize()
            return None, torch.mps.driver_allocated_memory()
        return None, None

    def each(self) -> tuple[tuple[float, int], ...]:
        """Seconds and peak bytes of each GPU that was used in the span that ended; empty without CUDA."""
        return self._each


def used_gpus() -> list[int]:
    """Indices of the GPUs that hold memory of this process; the current one if none does yet."""
    held = [index for index in range(torch.cuda.device_count()) if torch.cuda.memory_allocated(index)]
    return held or [torch.cuda.current_device()]


def device_name(device: str) -> str | None:
    """Name of the GPU that computes; None for the CPU, which the machine's own description names."""
    return torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else None


def gpu_uuid() -> str | None:
    """UUID of the first GPU that this process may use, as NVML reports it; None if there is none."""
    return f"GPU-{torch.cuda.get_device_properties(0).uuid}" if torch.cuda.is_available() else None


def set_threads(wanted: int | str) -> int:
    """Set torch's CPU threads and return their number; ``auto`` uses the physical cores that this process may use."""
    count = wanted if isinstance(wanted, int) else min(physical_cores(), int(os.environ.get(MAX_THREADS, "1024")))
    torch.set_num_threads(count)
    return count


def physical_cores() -> int:
    """Physical cores that this process may run on (never more than the scheduler allows)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def warm_up_seconds(device: str) -> float:
    """Seconds of the device's first small product (context, kernels), to keep them out of other measurements."""
    began = time.monotonic()
    probe = torch.ones(8, 8, device=device)
    (probe @ probe).sum().item()
    return time.monotonic() - began


SMALLER = "use quantization: 4bit, a shorter prompt, or a smaller model"
"""What to do if not even one row or option fits."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device; the CPU allocator's error has no specific type."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text


def free_memory() -> None:
    """Run the garbage collector and return cached device memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
