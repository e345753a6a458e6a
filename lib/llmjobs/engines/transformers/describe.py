"""The effective properties of a loaded model, read from its layers and never from the request."""

from collections import Counter
from typing import Any

from llmjobs.engines.locate import Located
from llmjobs.engines.protocol import Description
from llmjobs.engines.transformers.quantize import count_parameters, find_quantization
from llmjobs.manifest.models import ModelSpec
from llmjobs.quantization.registry import stored_bytes
from llmjobs.quantization.stored import StoredAs


def describe(
    spec: ModelSpec,
    model: Any,
    tokenizer: Any,
    located: Located,
    context_length: int | None = None,
    stored: StoredAs | None = None,
) -> Description:
    """Read a model's effective properties; ``stored`` is what config.json says of a quantized checkpoint."""
    weights = [*model.parameters(), *model.buffers()]
    devices = {w.device.type for w in model.parameters()}
    floats: Counter[str] = Counter()
    for weight in model.parameters():
        if weight.is_floating_point():
            floats[str(weight.dtype).removeprefix("torch.")] += weight.numel()
    found = find_quantization(model, stored)
    return Description(
        id=spec.id,
        revision=located.revision,
        architecture=type(model).__name__,
        device=devices.pop() if len(devices) == 1 else "mixed",
        dtype=floats.most_common(1)[0][0] if floats else "none",
        quantization=found.name,
        quantized_share=found.share or None,
        parameters=count_parameters(model),
        weight_bytes=sum(map(stored_bytes, weights)),
        attention=str(getattr(model.config, "_attn_implementation", None) or "own"),
        has_chat_template=bool(getattr(tokenizer, "chat_template", None)),
        engine="transformers",
        context_length=context_length,
        adapter=spec.adapter,
        adapter_revision=located.adapter.revision if located.adapter else None,
        adapter_merged=spec.merge_adapter if located.adapter else None,
    )
