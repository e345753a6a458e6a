"""Greedy text of every causal language model that transformers can build here equals ``transformers.generate``'s."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from every_causal_lm import CANNOT_BE_BUILT, NAMES, VARIANTS, tiny_model

from llmjobs.engines.transformers.fast_path_trials import probe_decoding
from llmjobs.engines.transformers.generate import Asked, Generator
from llmjobs.engines.transformers.shapes import reset_frequencies

RNG = random.Random(5)
NEW_TOKENS = 12
pytestmark = pytest.mark.filterwarnings("ignore")


class Letters:
    eos_token_id = 2

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(chr(40 + one) for one in ids)


def tokens(count: int) -> list[int]:
    return [RNG.randrange(3, 200) for _ in range(count)]


PREFIX = tokens(40)
CONTEXTS = [PREFIX + tokens(count) for count in (4, 2, 7, 4, 60)]


def generate(model: Any, context: Sequence[int]) -> list[int]:
    reset_frequencies(model)
    given = torch.tensor([context])
    how: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
    out = model.generate(given, attention_mask=torch.ones_like(given), **how)
    new = out[0, len(context) :].tolist()
    return new[: new.index(Letters.eos_token_id) + 1] if Letters.eos_token_id in new else new


def assert_equals_generate(model: Any) -> str:
    expected = [generate(model, one) for one in CONTEXTS]
    generator = Generator(model, Letters(), row_limit=3, warn=lambda line: None, max_length=512)
    found = generator.generate([Asked(one, NEW_TOKENS) for one in CONTEXTS])
    assert [list(one.token_ids) for one in found] == expected, generator.probe
    return generator.probe.path


OFTEN = {
    *("llama", "mistral", "qwen2", "qwen3", "olmo2", "phi3", "gpt2", "opt", "gpt_neo", "gpt_neox", "bloom", "falcon"),
    *("gemma3_text", "cohere2", "llama4_text", "mixtral", "qwen2_moe", "gpt_oss", "deepseek_v3", "openai-gpt"),
    *("mamba", "mamba2", "rwkv", "recurrent_gemma", "jamba", "lfm2", "qwen3_next", "xlnet", "reformer"),
}
"""What people evaluate, and one of each kind of attention and recurrence; the slow tests take all the others."""


@pytest.mark.parametrize("name", [pytest.param(one, marks=[pytest.mark.slow] * (one not in OFTEN)) for one in NAMES])
def test_greedy_text_equals_generate(name: str) -> None:
    if name in CANNOT_BE_BUILT:
        pytest.skip(CANNOT_BE_BUILT[name])
    assert_equals_generate(tiny_model(name))


@pytest.mark.parametrize("name", VARIANTS)
def test_lengths_windows_and_chunks_that_are_passed_equal_generate(name: str) -> None:
    kind, settings = VARIANTS[name]
    assert_equals_generate(tiny_model(kind, **settings))


def test_what_a_model_answered_before_does_not_change_its_answers() -> None:
    kind, settings = VARIANTS["llama-dynamic"]
    model = tiny_model(kind, **settings)
    generator = Generator(model, Letters(), max_length=512)
    alone = [generator.generate([Asked(one, NEW_TOKENS)])[0].token_ids for one in CONTEXTS]
    assert [one.token_ids for one in generator.generate([Asked(one, NEW_TOKENS) for one in CONTEXTS])] == alone


def test_most_of_them_can_be_built() -> None:
    assert len(set(NAMES) - set(CANNOT_BE_BUILT)) >= 150
    assert set(NAMES) - set(CANNOT_BE_BUILT) >= OFTEN


@pytest.mark.parametrize(
    ("kind", "paths"),
    [("llama", {"shared"}), ("mamba", {"padded"}), ("llama4_text", {"grouped"}), ("rwkv", {"single"})],
)
def test_the_path_is_found_out(kind: str, paths: set[str]) -> None:
    found = probe_decoding(tiny_model(kind))
    assert found.path in paths
    assert found.reason
