"""The forecast's stand-in can be built and run for models with other layers than attention."""

import pytest
import torch
from every_causal_lm import tiny_config

from llmjobs.engines.transformers.made_up_layers import (
    Unit,
    build,
    decode_seconds,
    first_path,
    first_with_keys,
    made_up_unit,
    score_once,
)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("kind", "layers"),
    [("llama", 1), ("qwen3_5_text", 4), ("jamba", 2), ("mamba", 1), ("recurrent_gemma", 3), ("openai-gpt", 1)],
)
def test_a_stand_in_is_scored_and_decodes(kind, layers):
    config = tiny_config(kind)
    assert first_with_keys(config) == layers
    model, _ = build(config, layers, "none", torch.float32, "cpu", False)
    assert getattr(model.config, "num_hidden_layers", None) == layers
    score_once(model, made_up_unit(Unit(8, 4, 16), 64), first_path(model))
    assert decode_seconds(model, "cpu", 2, 16) > 0
