"""One linear layer, quantized as ``models.quantize`` asks transformers to do it."""

import copy
from importlib import import_module
from typing import Any

import torch
from torch import nn

from llmjobs.errors import MissingPackageError
from llmjobs.manifest.model_section import Quantization
from llmjobs.models.quantize import effective_quantization


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
