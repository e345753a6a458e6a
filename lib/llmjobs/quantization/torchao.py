"""torchao: 8-bit weights with one scale per row, computed in the model's number format; inputs are not quantized."""

import copy
from importlib import import_module
from typing import Any

from llmjobs.quantization.method import Method


def _weight_only() -> Any:
    return import_module("torchao.quantization").Int8WeightOnlyConfig(version=2)


def _config(dtype: Any) -> Any:
    how = _weight_only()
    from transformers import TorchAoConfig

    return TorchAoConfig(how)


def _kind(weight: Any) -> str | None:
    if type(weight).__name__ != "Int8Tensor" or not type(weight).__module__.startswith("torchao"):
        return None
    quantized = str(weight.qdata.dtype) == "torch.int8" and getattr(weight, "act_quant_kwargs", None) is None
    return "int8" if quantized else "mixed"


def _layer(layer: Any, dtype: Any, device: str) -> Any:
    made = copy.deepcopy(layer).to(device, dtype)
    how = _weight_only()
    import_module("torchao.quantization").quantize_(made, how)
    return made


INT8 = Method(
    name="int8",
    title="int8",
    about="torchao's 8-bit weights",
    package="torchao",
    install="'llmjobs[torchao]'",
    devices=("cuda", "cpu"),
    weight_bytes=int,
    scale_bytes=lambda inputs, outputs: 5 * outputs,  # a float32 scale and a zero point of one byte
    gpu_share=0.6,
    layer_error=0.06,
    scoring_nats=1e-3,
    config=_config,
    kind_of=_kind,
    layer=_layer,
    optional=True,
    noisy_loggers=("torchao", "torch.utils._pytree", "torch.utils._triton"),  # kernels for other GPUs, deprecations
    stored_bytes=lambda weight: int(weight.qdata.numel()),
)
