"""Quantization of loaded models: the registry's entries applied to layers (``llmjobs.quantization``)."""

import copy
from typing import Any

import torch
from torch import nn

from llmjobs.quantization import METHODS, NONE
from llmjobs.quantization.method import kind_of


def quantization_config(quantization: str, dtype: torch.dtype) -> Any:
    """The ``quantization_config`` for ``from_pretrained``; None for no quantization.

    Raises:
        MissingPackageError: the method's package cannot be imported.

    """
    if quantization == NONE:
        return None
    method = METHODS[quantization]
    method.require()
    return method.config(dtype)


def effective_quantization(model: nn.Module) -> str:
    """``none`` or a method's name, read from the weights of all layers; ``mixed`` if they differ.

    A checkpoint that comes quantized in another way has the name of its method (``gptq``, ``awq``, …).
    """
    weights = (getattr(module, "weight", None) for module in model.modules())
    found = {kind for weight in weights if weight is not None and (kind := kind_of(weight))}
    if not found:
        return stored_method(model) or NONE
    return found.pop() if len(found) == 1 else "mixed"


def is_quantized(model: nn.Module) -> bool:
    """Whether some weights are integers."""
    return any(not weight.is_floating_point() or kind_of(weight) for weight in model.parameters())


def scoring_nats(model: nn.Module) -> float:
    """How much quantization lets a log-likelihood change with the other rows; the maximum for an unknown method."""
    kinds = {kind for weight in model.parameters() if (kind := kind_of(weight))} & set(METHODS)
    known = kinds or METHODS
    return max(METHODS[name].scoring_nats for name in known)


def stored_method(model: nn.Module) -> str | None:
    """Name of the method by which the checkpoint's own weights are quantized (``gptq``, ``awq``, ``fp8``, …).

    None if they are not, or were converted back to plain numbers while loading.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    config = getattr(quantizer, "quantization_config", None)
    if config is None or getattr(config, "dequantize", False):
        return None
    method = getattr(config, "quant_method", None)
    return str(getattr(method, "value", method)) if method else None


def quantized_layer(layer: nn.Linear, quantization: str, dtype: torch.dtype, device: str) -> nn.Module:
    """Return a copy of a float32 ``layer`` on ``device``, at the requested precision.

    Raises:
        MissingPackageError: the method's package cannot be imported.
        RuntimeError: the weights are not quantized afterwards; or any error of the back end.

    """
    if quantization == NONE:
        return copy.deepcopy(layer).to(device, dtype)
    method = METHODS[quantization]
    method.require()
    made: nn.Module = method.layer(layer, dtype, device)
    if (found := effective_quantization(made)) != quantization:
        raise RuntimeError(f"asked for {quantization}, but the layer's weights are {found}")
    return made
