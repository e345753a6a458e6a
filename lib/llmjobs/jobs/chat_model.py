"""Which model a chat is held with when none is named, and what of it is written down."""

from pathlib import Path
from typing import Any

from llmjobs.demo import DEMO_MODELS
from llmjobs.manifest.model_section import ModelSpec

SMALL_INSTRUCT = (
    "HuggingFaceTB/SmolLM2-360M-Instruct",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "meta-llama/Llama-3.2-1B-Instruct",
    "Qwen/Qwen2.5-1.5B-Instruct",
    "allenai/OLMo-2-0425-1B-Instruct",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "google/gemma-2-2b-it",
)
"""Looked for in the cache in this order."""
DEMO = "llmjobs/demo-base"


def default_model() -> str:
    """A small instruct model that is in the cache, else the embedded demo model."""
    from huggingface_hub import try_to_load_from_cache

    for name in SMALL_INSTRUCT:
        if isinstance(try_to_load_from_cache(name, "config.json"), str) and _has_weights(name):
            return name
    return DEMO


def _has_weights(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)


KNOWN_LINES = ("My name is Ben.", "What is my name?", "I live in Paris.", "Where do I live?")
"""What demo-base answers rightly, to try it."""


def toy_note(spec: ModelSpec) -> str | None:
    """What to tell somebody who talks with a demo model; None for any other model."""
    if spec.endpoint or spec.id.removeprefix("llmjobs/") not in DEMO_MODELS:
        return None
    if spec.id != DEMO:
        return f"{spec.id} is a toy that never saw a conversation; try {DEMO}, or a real model: {SMALL_INSTRUCT[0]}"
    lines = " / ".join(KNOWN_LINES)
    return (
        f"{spec.id} is a toy with a million parameters that knows a few hundred words. Try: {lines} "
        f"For a real model: llmjobs chat {SMALL_INSTRUCT[0]}"
    )


def is_manifest(argument: str) -> bool:
    """Whether the argument names a manifest and not a model."""
    return argument.endswith((".yaml", ".yml")) and not Path(argument).is_dir() and argument not in DEMO_MODELS


def identity(spec: ModelSpec) -> dict[str, Any]:
    """What a conversation was held with: the whole entry of the manifest, and what must not change."""
    revision = None
    if not spec.endpoint:
        from llmjobs.models.locate import locate

        revision = locate(spec).revision
    return {
        "model": spec.id,
        "revision": revision,
        "endpoint": spec.endpoint,
        "spec": spec.model_dump(mode="json"),
    }
