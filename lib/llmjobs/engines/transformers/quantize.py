"""Quantization of loaded models: the registry's entries applied to layers (``llmjobs.quantization``)."""

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llmjobs.quantization import METHODS, NONE
from llmjobs.quantization.method import kind_of, stored_count
from llmjobs.quantization.stored import DEQUANTIZED, STORED, Packing, StoredAs, StoredFormat, packing_of


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


@dataclass(frozen=True)
class Found:
    """How the weights of a loaded model are quantized."""

    name: str
    """``none``, a method's name, that of a stored checkpoint (``gptq-4bit-g128``), or ``mixed``."""
    share: float = 0.0
    """Of all weights, those that are quantized."""


def effective_quantization(model: nn.Module, stored: StoredAs | None = None) -> str:
    """``none`` or a method's name, read off the weights of all layers; ``mixed`` if they disagree among themselves.

    For a checkpoint that came quantized, ``stored`` is what its ``config.json`` says.
    """
    return find_quantization(model, stored).name


def find_quantization(model: nn.Module, stored: StoredAs | None = None) -> Found:
    """Read the quantization off a model's layers; the config only names what they were made from.

    A stored checkpoint is ``gptq-4bit-g128``: method, bits and weights a scale of its layers, the most frequent first.
    ``-dequantized`` is added if its weights are plain numbers by now.
    """
    if stored is not None and stored.same_as is None:
        return _find_stored(model, stored)
    kinds: Counter[str] = Counter()
    for weight in {id(one): one for one in _weights(model)}.values():
        if kind := kind_of(weight):
            kinds[kind] += stored_count(weight)
    if not kinds:
        return Found(NONE)
    return Found(next(iter(kinds)) if len(kinds) == 1 else "mixed", _share(sum(kinds.values()), model))


def _find_stored(model: nn.Module, stored: StoredAs) -> Found:
    entry, packings, plain = stored.entry, Counter[Packing](), 0
    for layer in model.modules():
        if packing := packing_of(layer, stored.method):
            count = layer_count(layer)
            packings[packing] += count
            plain += count if _is_plain(layer) else 0
    if entry is None or (not packings and not stored.packings):  # nothing but its name is known
        return Found(stored.method)
    if not packings:
        unpacked = not any(not one.is_floating_point() or one.element_size() < 2 for one in model.parameters())
        return Found(stored.label + DEQUANTIZED) if unpacked else Found("mixed")
    name = entry.label(packing for packing, _ in packings.most_common())
    return Found(name + (DEQUANTIZED if plain else ""), _share(sum(packings.values()), model))


def _weights(model: nn.Module) -> Iterator[Any]:
    found = (getattr(module, "weight", None) for module in model.modules())
    return (weight for weight in found if weight is not None)


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer's weights are numbers of 16 bits or more."""
    weight = getattr(layer, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.is_floating_point() and weight.element_size() > 1


def layer_count(layer: nn.Module) -> int:
    """How many weights a quantized linear layer stands for."""
    inputs, outputs = (getattr(layer, name, None) for name in ("in_features", "out_features"))
    if isinstance(inputs, int) and isinstance(outputs, int):
        return inputs * outputs
    return sum(map(stored_count, layer.parameters(recurse=False)))


def _share(count: int, model: nn.Module) -> float:
    return round(count / max(count_parameters(model), 1), 4)


def count_parameters(model: nn.Module) -> int:
    """Number of weights; a packed tensor counts for what it stands for, tied ones once."""
    packed = {id(layer): layer for layer, _, _ in stored_layers(model)}
    inside = {id(one) for layer in packed.values() for one in layer.parameters(recurse=False)}
    plain = sum(stored_count(one) for one in model.parameters() if id(one) not in inside)
    return plain + sum(layer_count(layer) for layer in packed.values())


def stored_layers(model: nn.Module) -> Iterator[tuple[nn.Module, StoredFormat, Packing]]:
    """The layers whose weights a stored checkpoint's format packs, and how."""
    for layer in model.modules():
        for entry in STORED.values():
            if packing := packing_of(layer, entry.name):
                yield layer, entry, packing
                break


def is_quantized(model: nn.Module) -> bool:
    """Say whether some weights, or the inputs of some layers, are computed in fewer than 16 bits."""
    if any(not weight.is_floating_point() or kind_of(weight) for weight in model.parameters()):
        return True
    return any(packing.activations or not _is_plain(layer) for layer, _, packing in stored_layers(model))


def scoring_nats(model: nn.Module) -> float:
    """How much quantization lets a log-likelihood change with the other rows; the maximum for an unknown method."""
    kinds = {kind for weight in model.parameters() if (kind := kind_of(weight))} & set(METHODS)
    nats = [METHODS[name].scoring_nats for name in kinds]
    nats += [entry.scoring_nats for _, entry, _ in stored_layers(model)]
    return max(nats or [method.scoring_nats for method in METHODS.values()])


def finish_layers(model: nn.Module) -> None:
    """Do what the first pass through quantized layers would do to their weights.

    bitsandbytes copies the weights of each 4-bit layer on some CPUs. In a pass through all layers, the memory of the
    freed copies would stay with the process, as much again as the weights; see
    :func:`llmjobs.memory.blocks_given_back`.
    """
    for layer in model.modules():
        method = METHODS.get(kind_of(getattr(layer, "weight", None)) or "")
        if method and method.finish:
            method.finish(layer)


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
