"""The effective properties of a loaded model, read from its layers and never from the request."""

from collections import Counter
from typing import Any

from torch import nn

from llmjobs.engines.locate import Located
from llmjobs.engines.protocol import Description
from llmjobs.engines.transformers.quantize import effective_quantization
from llmjobs.manifest.models import ModelSpec
from llmjobs.quantization.method import stored_bytes, stored_count


def describe(
    spec: ModelSpec, model: Any, tokenizer: Any, located: Located, context_length: int | None = None
) -> Description:
    """Read a model's effective properties."""
    weights = [*model.parameters(), *model.buffers()]
    devices = {w.device.type for w in model.parameters()}
    floats: Counter[str] = Counter()
    for weight in model.parameters():
        if weight.is_floating_point():
            floats[str(weight.dtype).removeprefix("torch.")] += weight.numel()
    return Description(
        id=spec.id,
        revision=located.revision,
        architecture=type(model).__name__,
        device=devices.pop() if len(devices) == 1 else "mixed",
        dtype=floats.most_common(1)[0][0] if floats else "none",
        quantization=effective_quantization(model),
        parameters=count_parameters(model),
        weight_bytes=sum(map(stored_bytes, weights)),
        attention=str(getattr(model.config, "_attn_implementation", None) or "own"),
        has_chat_template=bool(getattr(tokenizer, "chat_template", None)),
        engine="transformers",
        context_length=context_length,
    )


def count_parameters(model: nn.Module) -> int:
    """Number of weights; a packed 4-bit tensor counts with all its weights, and tied tensors count once."""
    return sum(map(stored_count, model.parameters()))
