"""Sizes from a config against a loaded model, speed at several contexts, one layer at each precision."""

import pytest
import torch
from transformers import AutoConfig

from llmjobs.demo import DEMO_MODELS
from llmjobs.engines.transformers.generate import measure_speed
from llmjobs.engines.transformers.load import load_model
from llmjobs.engines.transformers.machine_probe_child import try_layer
from llmjobs.engines.transformers.made_up_layers import Unit, build, decode_seconds, made_up_unit, score_once
from llmjobs.engines.transformers.quantize import quantized_layer
from llmjobs.engines.transformers.shapes import model_shapes, on_meta
from llmjobs.manifest import ModelSpec

DEMO = "demo-base"


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_weight_bytes_are_those_of_the_loaded_model(quantization):
    loaded = load_model(ModelSpec(id=f"llmjobs/{DEMO}", device="cpu", dtype="float32", quantization=quantization))
    config = AutoConfig.from_pretrained(DEMO_MODELS[DEMO])
    shapes = model_shapes(config, on_meta(config, torch.float32), torch.float32, quantization)
    assert shapes.parameters == loaded.description.parameters
    assert shapes.weight_bytes == pytest.approx(loaded.description.weight_bytes, rel=0.02)
    assert shapes.max_length == loaded.max_length


@pytest.fixture(scope="module")
def demo():
    return load_model(ModelSpec(id=f"llmjobs/{DEMO}", device="cpu", dtype="float32"))


def test_prefill_and_decode_apart(demo):
    found = measure_speed(demo.model, "cpu", demo.max_length, [16, 64, 10**6], rows=2, new_tokens=4)
    for one in found[:2]:
        assert one.prefill_tokens_per_s == pytest.approx(2 * one.context_tokens / one.ttft_s, rel=1e-3)
        assert one.decode_tokens_per_s > 0
    assert found[2].ttft_s is None
    assert found[2].reason == f"the model reads {demo.max_length} tokens, not 1000000 and 4 new ones"


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_a_stand_in_has_the_models_shape(quantization):
    config = AutoConfig.from_pretrained(DEMO_MODELS[DEMO])
    model, quantize_s = build(config, 1, quantization, torch.float32, "cpu", False)
    assert (quantize_s > 0) == (quantization != "none")
    plan = made_up_unit(Unit(prefix_tokens=40, question_tokens=20, batch_tokens=128), 512)
    assert len(plan.prefixes) >= 1 and len(plan.batches) >= 3
    score_once(model, plan)
    assert decode_seconds(model, "cpu", 2, 16) > 0


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_a_layer_at_each_precision(quantization):
    found = try_layer("cpu", "float32", quantization)
    assert found["ok"] and found["dtype"] == "float32"


def test_a_layer_that_is_not_what_was_asked_for_is_refused(monkeypatch):
    from llmjobs.engines.transformers import quantize as module

    monkeypatch.setattr(module, "effective_quantization", lambda _: "none")
    with pytest.raises(RuntimeError, match="asked for 4bit, but the layer's weights are none"):
        quantized_layer(torch.nn.Linear(64, 64, bias=False), "4bit", torch.float32, "cpu")


def test_a_device_that_is_not_here_has_a_reason():
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    assert try_layer("cuda", "auto", "none")["reason"].startswith("no CUDA")


@pytest.mark.cuda
def test_layers_and_agreement_on_a_gpu():
    from llmjobs.engines.transformers.machine_probe_child import parity

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here: its layers are not tried")
    for quantization in ("none", "8bit", "4bit"):
        assert try_layer("cuda", "auto", quantization)["ok"]
    assert parity("cuda")["ok"]
