"""The one place that knows bitsandbytes: how 8-bit and 4-bit are asked for and recognised on loaded layers."""

import copy
from importlib import import_module
from typing import Any

import torch
from torch import nn

from llmjobs.errors import MissingPackageError
from llmjobs.manifest.models import Quantization

# The one place that knows bitsandbytes: how to ask for 8-bit and 4-bit, and how to recognise them once loaded.


def quantization_config(quantization: Quantization, dtype: torch.dtype) -> Any:
    """What ``from_pretrained`` takes as ``quantization_config``; None for no quantization.

    8bit is LLM.int8 (arXiv 2208.07339) with its published threshold 6.0; 4bit is NF4 with double quantization
    (arXiv 2305.14314), computed in ``dtype``.

    Raises:
        MissingPackageError: bitsandbytes cannot be imported.

    """
    if quantization == "none":
        return None
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"quantization: {quantization} needs bitsandbytes, which cannot be imported ({error}); "
            "pip install bitsandbytes"
        ) from None
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=6.0)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def effective_quantization(model: nn.Module) -> str:
    """``none``, ``8bit`` or ``4bit``, read off the linear layers; ``mixed`` if they disagree among themselves.

    A checkpoint that comes quantized in another way has the name of its method (``gptq``, ``awq``, …).
    """
    found = {kind for module in model.modules() if (kind := _kind(module))}
    if not found:
        return stored_method(model) or "none"
    return found.pop() if len(found) == 1 else "mixed"


def stored_method(model: nn.Module) -> str | None:
    """Name of the method by which the checkpoint's own weights are quantized (``gptq``, ``awq``, ``fp8``, …).

    None where they are not, or were turned back into plain numbers while loading.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    config = getattr(quantizer, "quantization_config", None)
    if config is None or getattr(config, "dequantize", False):
        return None
    method = getattr(config, "quant_method", None)
    return str(getattr(method, "value", method)) if method else None


def _kind(module: nn.Module) -> str | None:
    """A layer counts by what its weight is, not by what its class is called."""
    weight = getattr(module, "weight", None)
    name = type(weight).__name__
    if name == "Params4bit":
        return "4bit" if getattr(weight, "quant_state", None) is not None else "mixed"
    if name == "Int8Params":
        return "8bit" if weight is not None and weight.dtype == torch.int8 else "mixed"
    return None


# One linear layer, quantized as `models.quantize` asks transformers to do it.


def quantized_layer(layer: nn.Linear, quantization: Quantization, dtype: torch.dtype, device: str) -> nn.Module:
    """Return a copy of a float32 ``layer`` on ``device``, at the precision asked for.

    Raises:
        MissingPackageError: bitsandbytes is not there.
        RuntimeError: the weights are not quantized afterwards; or whatever the back end raises.

    """
    if quantization == "none":
        return copy.deepcopy(layer).to(device, dtype)
    try:
        layers: Any = import_module("bitsandbytes.nn")
    except ImportError as error:
        raise MissingPackageError(
            f"bitsandbytes cannot be imported ({str(error)[:100]}); pip install bitsandbytes"
        ) from None
    sizes = (layer.in_features, layer.out_features)
    made: nn.Module
    if quantization == "8bit":
        made = layers.Linear8bitLt(*sizes, bias=False, has_fp16_weights=False, threshold=6.0)
        made.weight = layers.Int8Params(layer.weight.detach().clone(), requires_grad=False, has_fp16_weights=False)
    else:
        made = layers.Linear4bit(*sizes, bias=False, compute_dtype=dtype, quant_type="nf4", compress_statistics=True)
        made.weight = layers.Params4bit(
            layer.weight.detach().clone(), requires_grad=False, quant_type="nf4", compress_statistics=True
        )
    made = made.to(device)
    if (found := effective_quantization(made)) != quantization:
        raise RuntimeError(f"asked for {quantization}, but the layer's weights are {found}")
    return made
