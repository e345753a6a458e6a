"""Trials on a model's first layers: they include every kind of layer, and the whole model decides."""

from typing import Any

import pytest
import torch
from scoring_models import llama_config, random_model
from transformers import AutoModelForCausalLM, Gemma3TextConfig

from llmjobs.engines.transformers import fast_path_trials, first_layers, load, packed_attention, score
from llmjobs.engines.transformers.chat_model import KeptKeys
from llmjobs.engines.transformers.fast_path_trials import probe_decoding
from llmjobs.engines.transformers.first_layers import enough_layers, kinds_end, layers_of
from llmjobs.engines.transformers.score import Scorer
from llmjobs.errors import ModelError


@pytest.fixture
def deep() -> Any:
    return random_model(llama_config(layers=8))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_layers, "LONGEST_TRIAL_S", 0.0)


def seen_layers(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Layers that were there whenever the model's first layer ran."""
    seen: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda *_: seen.append(len(model.model.layers)))
    return seen


def mixed(*kinds: str) -> Any:
    config = Gemma3TextConfig(
        vocab_size=211, hidden_size=32, intermediate_size=64, num_hidden_layers=len(kinds), num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, layer_types=list(kinds), sliding_window=16,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def test_a_quick_model_is_tried_whole(deep: Any) -> None:
    assert enough_layers(deep) is None
    assert Scorer(deep).probe().layers is None


@pytest.mark.usefixtures("slow")
def test_a_slow_model_is_tried_on_its_first_layers(deep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_layers(deep, monkeypatch)
    found = Scorer(deep).probe()
    assert (found.path, found.layers) == ("shared", 2)
    assert probe_decoding(deep).layers == 2
    load.check_reads_forward("deep", deep)
    assert set(seen) == {2}
    assert len(deep.model.layers) == 8


@pytest.mark.usefixtures("slow")
def test_a_slow_model_is_tried_for_a_chat_on_its_first_layers(deep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_layers(deep, monkeypatch)
    keys = KeptKeys(deep, "deep")
    assert keys.keeps and keys.held == [] and set(seen) == {2}
    keys.prefill([1, 2, 3])
    assert set(seen) == {2, 8}


def test_every_kind_of_layer_is_among_the_first() -> None:
    full, sliding = "full_attention", "sliding_attention"
    assert kinds_end(mixed(sliding, sliding, full, sliding, full).model.layers) == 3
    assert kinds_end(mixed(full, full, full).model.layers) == 1
    assert enough_layers(mixed(*[sliding] * 5, full), longest_s=0) is None, "all of them are needed"
    assert enough_layers(mixed(*[sliding] * 3, full, full, full), longest_s=0) == 4


def test_as_many_layers_as_the_time_allows(deep: Any) -> None:
    ticks = iter([0.0, 2.0])
    assert enough_layers(deep, passes=1, longest_s=6, clock=lambda: next(ticks)) == 3
    ticks = iter([0.0, 0.2])
    assert enough_layers(deep, passes=1, longest_s=1, clock=lambda: next(ticks)) is None


def test_a_trial_of_many_slow_tokens_is_made_on_the_first_layers(deep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass of 16 tokens is quick, the comparison of 1,300 tokens would take half a minute."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(first_layers.time, "perf_counter", lambda: next(ticks) * 0.1)
    monkeypatch.setattr(
        enough_layers, "__kwdefaults__", enough_layers.__kwdefaults__ | {"clock": first_layers.time.perf_counter}
    )
    assert enough_layers(deep) is None
    assert Scorer(deep).probe(most_tokens=10**6).layers == 2


@pytest.mark.usefixtures("slow")
def test_a_path_that_fails_on_the_first_layers_is_tried_on_all(deep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_layers(deep, monkeypatch)
    monkeypatch.setattr(packed_attention, "_merge_cross", lambda *args: None)
    found = Scorer(deep, warn=lambda line: None).probe()
    assert (found.path, found.layers) == ("cached", None)
    assert set(seen) == {2, 8}


@pytest.mark.usefixtures("slow")
def test_a_model_that_cannot_lose_layers_is_tried_whole(deep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    deep.model.register_forward_pre_hook(lambda *_: (deep.model.layers[7], None)[1])
    found = Scorer(deep).probe()
    assert (found.path, found.layers) == ("shared", None)
    assert layers_of(deep) is not None


@pytest.mark.usefixtures("slow")
def test_reading_in_both_directions_is_seen(deep: Any) -> None:
    """In every layer alike, which is what a model of that kind does."""
    for layer in deep.model.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda _, args, kwargs: (args, kwargs | {"attention_mask": torch.zeros(1, 1, 8, 8)}), with_kwargs=True
        )
    with pytest.raises(ModelError, match="both directions"):
        load.check_reads_forward("deep", deep)


def test_the_layers_are_put_back_after_an_error(deep: Any) -> None:
    with pytest.raises(ZeroDivisionError), first_layers.first_layers(deep, 2):
        assert len(deep.model.layers) == 2
        raise ZeroDivisionError
    assert len(deep.model.layers) == 8


def test_a_probe_is_read_back_and_what_is_none_is_not(deep: Any) -> None:
    for kind, found in (
        (score.ScoringProbe, Scorer(deep).probe()),
        (fast_path_trials.DecodeProbe, probe_decoding(deep)),
    ):
        assert kind.from_builtin(found.to_builtin()) == found
        for broken in (None, [], {}, found.to_builtin() | {"path": "other"}, found.to_builtin() | {"reason": None}):
            assert kind.from_builtin(broken) is None
        assert kind.from_builtin(found.to_builtin() | {"max_difference": "x"}) is None
