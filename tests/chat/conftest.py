"""A tiny random Llama with the demo models' tokenizer and chat template, and stand-ins for models."""

from pathlib import Path

import pytest
from chat_fakes import FakeBackend, never_special

from llmjobs.demo import DEMO_MODELS


def make_model(folder: Path, *, seed: int = 0, **changes) -> Path:
    """Write a random model; ``changes`` go to its config."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODELS["demo-base"])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    values = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.3,
    }
    model = LlamaForCausalLM(LlamaConfig(**values | changes))
    never_special(model, tokenizer)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def backend(tiny):
    """A local backend on the tiny model, keys kept."""
    from chat_fakes import load_backend

    return load_backend(tiny)


@pytest.fixture
def fake() -> FakeBackend:
    return FakeBackend()
