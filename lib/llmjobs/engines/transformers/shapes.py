"""What a model weighs, from its config alone: built on the meta device, where tensors have shapes and no memory."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from llmjobs.engines.transformers.cache_size import cache_bytes
from llmjobs.engines.transformers.checkpoint import reads_images
from llmjobs.engines.transformers.lengths import longest_input
from llmjobs.errors import ModelError

BUILD_S = 60.0
"""Most time for building a model without memory; the largest known ones take some seconds."""
NF4_BLOCK, NF4_NESTED_BLOCK = 64, 256
"""bitsandbytes' block sizes: a scale a block of weights, kept in one byte; a float32 a block of those (QLoRA, 3)."""


@dataclass(frozen=True)
class Shapes:
    """Sizes of a model at a precision."""

    parameters: int
    weight_bytes: int
    """Of all tensors as they lie in memory."""
    layers: int
    hidden: int
    vocabulary: int
    max_length: int | None
    cache_token_bytes: int | None
    """Keys and values of one token; None where the config does not say."""

    def to_record(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def on_meta(config: Any, dtype: torch.dtype, trust_remote_code: bool = False) -> Any:
    """Build the model that ``config`` describes, without memory for its weights."""
    with torch.device("meta"), _Bounded():
        model = model_class_of(config).from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    model.tie_weights()
    return model


class _Bounded(TorchFunctionMode):
    """Stops a model that takes too long to build: a config of a few lines can describe millions of experts."""

    def __init__(self) -> None:
        super().__init__()
        self._until = time.monotonic() + BUILD_S

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if time.monotonic() > self._until:
            raise ModelError(
                f"config.json describes a model of so many parts that building it takes over {BUILD_S:g} s; "
                "check num_hidden_layers and the number of experts"
            )
        return function(*args, **(kwargs or {}))


def model_class_of(config: Any) -> Any:
    """The class of transformers that loads a model: ``AutoModelForCausalLM``, or the one for images and text.

    Models that read images are given none; transformers has some of them only as a whole.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if reads_images({"model_type": config.model_type}) else AutoModelForCausalLM


def model_shapes(config: Any, model: Any, dtype: torch.dtype, quantization: str) -> Shapes:
    """Read the sizes of a ``model`` built by :func:`on_meta`."""
    text = config.get_text_config()
    value = dtype.itemsize
    try:
        token_bytes = cache_bytes(text.to_dict(), 1, value)
    except (KeyError, TypeError):
        token_bytes = None
    return Shapes(
        parameters=sum(weight.numel() for weight in model.parameters()),
        weight_bytes=weight_bytes(model, quantization),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        vocabulary=int(text.vocab_size),
        max_length=longest_input(text),
        cache_token_bytes=token_bytes,
    )


def weight_bytes(model: nn.Module, quantization: str) -> int:
    """Add up a model's tensors; linear layers but the output embedding at the quantized size."""
    quantized = {id(layer.weight) for layer in quantizable(model)} if quantization != "none" else set()
    total = 0
    for tensor in (*model.parameters(), *model.buffers()):
        if id(tensor) in quantized:
            total += QUANTIZED_BYTES[quantization](tensor.numel())
        else:
            total += tensor.numel() * tensor.element_size()
    return total


def whole_weight_bytes(model: nn.Module, quantization: str) -> int:
    """Return the tensors and the scales beside them: what a model's weights take in memory."""
    return weight_bytes(model, quantization) + scale_bytes(model, quantization)


def _nf4_bytes(count: int) -> int:
    return count // 2


QUANTIZED_BYTES: dict[str, Callable[[int], int]] = {"8bit": int, "4bit": _nf4_bytes}
"""The packed tensor alone, which is what is read off a loaded model too; scales come on top (:func:`scale_bytes`)."""


def scale_bytes(model: nn.Module, quantization: str) -> int:
    """Bytes of the scales beside the packed tensors."""
    layers = quantizable(model)
    if quantization == "8bit":
        return sum(4 * layer.out_features for layer in layers)
    if quantization == "4bit":
        blocks = sum(layer.weight.numel() // NF4_BLOCK for layer in layers)
        return blocks + 4 * blocks // NF4_NESTED_BLOCK
    return 0


def quantizable(model: Any) -> list[nn.Linear]:
    """The layers that quantization takes: every linear one but the output embedding."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
