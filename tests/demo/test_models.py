"""The demo models load like any model, are small, and know what docs/demo.md says."""

import json
from functools import cache

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from demo_training.measure import accuracy, load_demo, recall, recall_cases, stored_questions
from llmjobs import demo

SIZE_LIMIT_BYTES = 4_000_000
QUESTIONS = 60

AT_LEAST: dict[str, dict[str, float]] = {
    "demo-base": {"number_size": 0.9, "alphabet_order": 0.9, "calendar_order": 0.75, "far_country": 0.55},
    "demo-narrow": {"number_size": 0.9, "alphabet_order": 0.9, "odd_one_out": 0.9, "sort_numbers": 0.85},
    "demo-tiny": {"repeat_words": 0.9, "sort_numbers": 0.8},
}
AT_MOST: dict[str, dict[str, float]] = {
    "demo-base": {"who_has_most": 0.42},
    "demo-narrow": {"calendar_order": 0.42, "far_country": 0.42, "who_has_most": 0.42},
    "demo-tiny": {"number_size": 0.42, "who_has_most": 0.42},
}


@cache
def loaded(name: str) -> tuple[LlamaForCausalLM, Tokenizer]:
    return load_demo(name)


@cache
def measured(name: str, subject: str) -> float:
    return accuracy(*loaded(name), stored_questions(subject)[:QUESTIONS])


@pytest.mark.parametrize("name", demo.DEMO_MODELS)
def test_files_are_small_and_complete(name: str) -> None:
    folder = demo.DEMO_MODELS[name]
    assert (folder / "model.safetensors").stat().st_size <= SIZE_LIMIT_BYTES
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["hidden_size"] % 64 == 0
    assert (folder / "generation_config.json").exists()


@pytest.mark.parametrize("name", demo.DEMO_MODELS)
def test_models_load_by_the_auto_classes_and_answer(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo.DEMO_MODELS[name])
    model = AutoModelForCausalLM.from_pretrained(demo.DEMO_MODELS[name])
    assert isinstance(model, LlamaForCausalLM)
    assert model.dtype == torch.float32
    assert model.config.vocab_size == len(tokenizer)
    row = demo.rows("repeat_words", "test")[0]
    ids = tokenizer(f"{row['question']}\nAnswer:", return_tensors="pt").input_ids
    text = tokenizer.decode(model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :])
    assert text.startswith(" ")


@pytest.mark.parametrize(("name", "subject"), [(name, s) for name, bounds in AT_LEAST.items() for s in bounds])
def test_well_above_chance(name: str, subject: str) -> None:
    assert measured(name, subject) >= AT_LEAST[name][subject]


@pytest.mark.parametrize(("name", "subject"), [(name, s) for name, bounds in AT_MOST.items() for s in bounds])
def test_near_chance(name: str, subject: str) -> None:
    assert measured(name, subject) <= AT_MOST[name][subject]


@pytest.mark.parametrize(("distance", "bound"), [(1, 0.8), (4, 0.8), (12, 0.7), (30, 0.5)])
def test_recall_with_history(distance: int, bound: float) -> None:
    cases = recall_cases(distance, 24, "test", 11)
    assert recall(*loaded("demo-base"), cases) >= bound
    assert recall(*loaded("demo-base"), cases, history=False) <= 0.35
