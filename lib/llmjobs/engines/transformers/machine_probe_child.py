"""What this machine can compute, tried in a child process.

A probe runs something small and compares it with float32 on the CPU. Nothing is decided from a table.
"""

import logging
import platform
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from llmjobs.engines.transformers.device import available, cpu_computes_bfloat16, resolve_dtype
from llmjobs.engines.transformers.quantize import quantized_layer
from llmjobs.errors import plain_reason
from llmjobs.machine.child import Reporter, serve
from llmjobs.manifest.models import Device, DType
from llmjobs.quantization import METHODS

DEVICES = ("cuda", "mps", "cpu")
ROUNDING = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.05}
"""Largest relative error of a layer's output that rounding explains; a quantization method adds its own."""
PARITY_NATS = 0.02
SIZE = 128


def describe_devices() -> dict[str, dict[str, Any]]:
    """Each device with its memory and capabilities, or why it is not available."""
    here = available()
    return {name: _DESCRIBE[name]() if name in here else {"reason": _absent(name)} for name in DEVICES}


def _absent(device: str) -> str:
    if device == "cuda":
        if torch.version.cuda is None:
            return "no CUDA: this torch is built without it"
        return "no CUDA device: the NVIDIA driver does not respond or shows no device"
    if not torch.backends.mps.is_built():
        return f"no Apple GPU: this is {platform.system()} {platform.machine()}, and torch is built without Metal"
    return "no Apple GPU: this macOS or machine has no Metal device"


def _cuda() -> dict[str, Any]:
    found = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    return {
        "name": found.name,
        "count": torch.cuda.device_count(),
        "memory_bytes": total,
        "free_bytes": free,
        "capability": f"{found.major}.{found.minor}",
        "bfloat16": torch.cuda.is_bf16_supported(including_emulation=False),
        "uuid": f"GPU-{found.uuid}",
        "cuda": torch.version.cuda,
    }


def _mps() -> dict[str, Any]:
    return {"name": f"Apple GPU, {platform.machine()}", "memory_bytes": torch.mps.recommended_max_memory()}


def _cpu() -> dict[str, Any]:
    return {"name": "CPU", "bfloat16": cpu_computes_bfloat16(), "capability": torch.backends.cpu.get_cpu_capability()}


_DESCRIBE = {"cuda": _cuda, "mps": _mps, "cpu": _cpu}


def try_layer(device: Device, dtype: DType, quantization: str) -> dict[str, Any]:
    """Run one layer at a precision on a device: ``ok``, the ``dtype`` in which it computed, or the ``reason``."""
    if device not in available():
        return {"ok": False, "reason": _absent(device)}
    try:
        number = resolve_dtype(dtype, device)
        error = _layer_error(device, number, quantization)
    except Exception as problem:
        what = f"{METHODS[quantization].title} does not work" if quantization in METHODS else f"{dtype} does not work"
        return {"ok": False, "reason": f"{what} on {device}: {plain_reason(problem, 200)}"}
    allowed = max(ROUNDING[number], METHODS[quantization].layer_error if quantization in METHODS else 0.0)
    name = str(number).removeprefix("torch.")
    if not error <= allowed:
        return {
            "ok": False,
            "reason": f"a {quantization} layer in {name} on {device} differs from float32 on the CPU by {error:.0%}",
        }
    return {"ok": True, "dtype": name, "error": round(error, 6)}


@torch.inference_mode()
def _layer_error(device: str, dtype: torch.dtype, quantization: str) -> float:
    """Return the relative error of a layer's output against float32 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(SIZE, SIZE, bias=False)
    layer.weight.copy_(torch.randn(SIZE, SIZE, generator=generator) / SIZE**0.5)
    inputs = torch.randn(1, 16, SIZE, generator=generator)
    wanted = layer(inputs)
    found = quantized_layer(layer, quantization, dtype, device)(inputs.to(device, dtype))
    return float((found.float().cpu() - wanted).norm() / wanted.norm())


@torch.inference_mode()
def parity(device: str) -> dict[str, Any]:
    """Compare log-probabilities of a small random Llama on ``device`` and on the CPU, both in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    model.eval()
    tokens = torch.randint(0, 512, (3, 192), generator=torch.Generator().manual_seed(1))
    wanted = torch.log_softmax(model(tokens).logits, -1)
    there: Any = model.to(device)
    found = torch.log_softmax(there(tokens.to(device)).logits.float().cpu(), -1)
    worst = float((found - wanted).abs().max())
    return {"ok": worst <= PARITY_NATS, "max_difference_nats": worst}


def _probe(task: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Report each item before trying it, so that a crash can be attributed to it."""
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    reporter.report(devices=describe_devices())
    for device, dtype, quantization in task["layers"]:
        reporter.report(trying=[device, dtype, quantization])
        reporter.report(layer=[device, dtype, quantization], verdict=try_layer(device, dtype, quantization))
    for device in task.get("parity", ()):
        reporter.report(trying=["parity", device])
        try:
            found = parity(device)
        except Exception as error:
            found = {"ok": False, "reason": plain_reason(error, 200)}
        reporter.report(parity=device, verdict=found)
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    serve(_probe)
