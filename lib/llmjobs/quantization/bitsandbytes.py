"""bitsandbytes: LLM.int8 (arXiv 2208.07339) and NF4 with double quantization (arXiv 2305.14314)."""

from importlib import import_module
from typing import Any

from llmjobs.quantization.method import Method

THRESHOLD = 6.0
"""LLM.int8's published threshold for outliers."""
NF4_BLOCK, NF4_NESTED_BLOCK = 64, 256
"""Block sizes: one scale per block of weights, stored in one byte; one float32 per block of scales (QLoRA, section 3).
"""
NATS = 0.05
"""LLM.int8 finds outliers over the whole batch, and 4-bit kernels depend on the number of rows, so a plain forward
differs from itself in batches of another shape, by up to 0.015 in our measurements.
"""


def _config(dtype: Any, **settings: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**settings)


def _int8_config(dtype: Any) -> Any:
    return _config(dtype, load_in_8bit=True, llm_int8_threshold=THRESHOLD)


def _nf4_config(dtype: Any) -> Any:
    return _config(
        dtype,
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _int8_kind(weight: Any) -> str | None:
    if type(weight).__name__ != "Int8Params":
        return None
    return "8bit" if str(weight.dtype) == "torch.int8" else "mixed"


def _nf4_kind(weight: Any) -> str | None:
    if type(weight).__name__ != "Params4bit":
        return None
    return "4bit" if getattr(weight, "quant_state", None) is not None else "mixed"


def _int8_layer(layer: Any, dtype: Any, device: str) -> Any:
    layers: Any = import_module("bitsandbytes.nn")
    made = layers.Linear8bitLt(
        layer.in_features, layer.out_features, bias=False, has_fp16_weights=False, threshold=THRESHOLD
    )
    made.weight = layers.Int8Params(layer.weight.detach().clone(), requires_grad=False, has_fp16_weights=False)
    return made.to(device)


def _nf4_layer(layer: Any, dtype: Any, device: str) -> Any:
    layers: Any = import_module("bitsandbytes.nn")
    how = {"quant_type": "nf4", "compress_statistics": True}
    made = layers.Linear4bit(layer.in_features, layer.out_features, bias=False, compute_dtype=dtype, **how)
    made.weight = layers.Params4bit(layer.weight.detach().clone(), requires_grad=False, **how)
    return made.to(device)


def _nf4_scales(inputs: int, outputs: int) -> int:
    blocks = inputs * outputs // NF4_BLOCK
    return blocks + 4 * blocks // NF4_NESTED_BLOCK


def _nf4_count(weight: Any) -> int:
    shape = getattr(weight.quant_state, "shape", None)
    return int(shape.numel()) if shape is not None else int(weight.numel())


def _nf4_finish(layer: Any) -> None:
    """On processors with AVX512-BF16, the first pass through a layer arranges its weights anew."""
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    if state is None or layer.weight.device.type != "cpu" or not getattr(layer, "support_avx512bf16_for_cpu", False):
        return
    torch = import_module("torch")
    with torch.inference_mode():
        layer(torch.zeros(1, layer.in_features, dtype=layer.compute_dtype or torch.bfloat16))


INT8 = Method(
    name="8bit",
    title="8-bit",
    about="LLM.int8",
    package="bitsandbytes",
    install="bitsandbytes",
    devices=("cuda", "cpu"),
    weight_bytes=int,
    scale_bytes=lambda inputs, outputs: 4 * outputs,
    gpu_share=0.6,
    layer_error=0.06,
    scoring_nats=NATS,
    config=_int8_config,
    kind_of=_int8_kind,
    layer=_int8_layer,
)
NF4 = Method(
    name="4bit",
    title="4-bit",
    about="NF4 with double quantization",
    package="bitsandbytes",
    install="bitsandbytes",
    devices=("cuda", "cpu"),
    weight_bytes=lambda count: count // 2,
    scale_bytes=_nf4_scales,
    gpu_share=0.4,
    layer_error=0.2,
    scoring_nats=NATS,
    config=_nf4_config,
    kind_of=_nf4_kind,
    layer=_nf4_layer,
    stored_count=_nf4_count,
    finish=_nf4_finish,
)
