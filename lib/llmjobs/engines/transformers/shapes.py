"""The size and the longest input of a model, from its config alone.

The model is built on the meta device, where tensors have shapes but no memory.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from llmjobs.engines.protocol import DEFAULT_LENGTH
from llmjobs.engines.transformers.model_files import reads_images
from llmjobs.errors import ModelError
from llmjobs.quantization import METHODS, NONE
from llmjobs.quantization.stored import Place, StoredAs

NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
LENGTH_DEPENDENT = {"dynamic", "longrope"}


def longest_input(config: Any) -> int | None:
    """Longest input in tokens according to a text ``config``; None if it does not say."""
    found = (getattr(config, name, None) for name in NAMES)
    return next((length for length in found if isinstance(length, int) and length > 0), None)


def most_tokens(model: Any) -> int:
    """Return the longest input of the model in tokens; 2,048 if its config does not say, as in lm-eval."""
    config = model.config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
    found = (getattr(config, name, None) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), DEFAULT_LENGTH)


def sharing_limit(model: Any) -> int | None:
    """Return the length up to which keys can be kept and rows of different lengths can run together; None for any.

    Dynamic and long-rope frequencies change, for all positions of all rows, once the longest input is longer than the
    original context.
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {rope.get("rope_type"), *(one.get("rope_type") for one in rope.values() if isinstance(one, dict))}
    if not kinds & LENGTH_DEPENDENT:
        return None
    parts = [rope, *(one for one in rope.values() if isinstance(one, dict))]
    named = [one["original_max_position_embeddings"] for one in parts if one.get("original_max_position_embeddings")]
    return int(min(named, default=0) or getattr(config, "original_max_position_embeddings", 0) or most_tokens(model))


def reset_frequencies(model: Any) -> None:
    """Reset dynamic frequencies to the original ones.

    transformers keeps the frequencies of the longest input so far, so earlier inputs would change later answers.
    """
    if sharing_limit(model) is None:
        return
    for module in model.modules():
        cached, original = getattr(module, "max_seq_len_cached", None), getattr(module, "original_max_seq_len", None)
        if cached is None or original is None:
            continue
        for name in [name for name, _ in module.named_buffers(recurse=False) if name.endswith("original_inv_freq")]:
            prefix = name.removesuffix("original_inv_freq")
            frequencies = getattr(module, f"{prefix}inv_freq")
            module.register_buffer(f"{prefix}inv_freq", getattr(module, name).to(frequencies.device).clone(), False)
            if hasattr(module, f"{prefix}max_seq_len_cached"):
                setattr(module, f"{prefix}max_seq_len_cached", original)
        module.max_seq_len_cached = original


def cache_bytes(config: Mapping[str, Any], tokens: int, value_bytes: int) -> int:
    """Return the bytes of the keys and values of ``tokens`` tokens: 2 × layers × kept heads × head size.

    ``value_bytes`` is 2 in half precision, 4 in fp32. Raises KeyError if the config does not say.
    """
    layers = _first(config, "num_hidden_layers", "n_layer", "n_layers")
    heads = _first(config, "num_attention_heads", "n_head", "n_heads")
    size = config.get("head_dim") or _first(config, "hidden_size", "n_embd", "d_model") // heads
    kept = config.get("num_key_value_heads") or heads
    return int(2 * layers * kept * size * tokens * value_bytes)


def _first(config: Mapping[str, Any], *names: str) -> int:
    found = next((config[name] for name in names if config.get(name)), None)
    if found is None:
        raise KeyError(f"the config has none of {', '.join(names)}")
    return int(found)


BUILD_S = 60.0
"""Time limit for building a model without memory, in seconds; the largest known ones take a few."""


@dataclass(frozen=True)
class Shapes:
    """Sizes of a model at a precision."""

    parameters: int
    weight_bytes: int
    """Bytes of all tensors in memory."""
    layers: int
    hidden: int
    vocabulary: int
    max_length: int | None
    cache_token_bytes: int | None
    """Bytes of the keys and values of one token; None if the config does not say."""

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
                f"config.json describes a model with so many parts that building it takes more than {BUILD_S:g} s; "
                "check num_hidden_layers and the number of experts"
            )
        return function(*args, **(kwargs or {}))


def model_class_of(config: Any) -> Any:
    """The class of transformers that loads a model: ``AutoModelForCausalLM``, or the one for images and text.

    Models that read images get none; transformers has some of them only as a whole.
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
    """Add up a model's tensors, with linear layers except the output embedding at their quantized size."""
    quantized = {id(layer.weight) for layer in quantizable(model)} if quantization != NONE else set()
    total = 0
    for tensor in (*model.parameters(), *model.buffers()):
        if id(tensor) in quantized:
            total += METHODS[quantization].weight_bytes(tensor.numel())
        else:
            total += tensor.numel() * tensor.element_size()
    return total


def whole_weight_bytes(model: nn.Module, quantization: str) -> int:
    """Return the bytes of a model's weights in memory: the tensors and their scales."""
    return weight_bytes(model, quantization) + scale_bytes(model, quantization)


def as_stored_bytes(model: nn.Module, stored: StoredAs, place: Place) -> int:
    """Bytes of the weights of a checkpoint that comes quantized: packed, or plain where loading unpacks them."""
    plain = whole_weight_bytes(model, NONE)
    if not stored.packings or stored.is_unpacked(place):
        return plain
    layers, packing = quantizable(model), stored.packings[0]
    packed = sum(packing.layer_bytes(layer.in_features, layer.out_features) for layer in layers)
    return plain - sum(layer.weight.numel() * layer.weight.element_size() for layer in layers) + packed


def scale_bytes(model: nn.Module, quantization: str) -> int:
    """Bytes of the scales beside the packed tensors."""
    if quantization == NONE:
        return 0
    return sum(METHODS[quantization].scale_bytes(one.in_features, one.out_features) for one in quantizable(model))


def quantizable(model: Any) -> list[nn.Linear]:
    """The layers that are quantized: every linear one except the output embedding."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
