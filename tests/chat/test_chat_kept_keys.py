"""Keys and values over turns: the same answers as without, the longest common prefix kept, resumable to the bit."""

import pytest
import torch
from chat_fakes import load_backend, never_special

from llmjobs.chat.agent import Agent
from llmjobs.chat.backend import Sampling
from llmjobs.chat.messages import Message
from llmjobs.demo import DEMO_MODELS
from llmjobs.engines.transformers import fast_path_trials
from llmjobs.engines.transformers.chat_model import KeptKeys
from llmjobs.errors import ModelError

MESSAGES = [f"My name is {name}." for name in ("Ana", "Ben", "Cara", "Dan", "Eva", "Finn")]


def talk(backend, messages, **options) -> list:
    agent = Agent(backend, sampling=Sampling(12, options.pop("temperature", 0.0)), seed=5, **options)
    return [agent.ask(message) for message in messages]


@pytest.mark.parametrize("strategy", ["full", "window", "summary", "retrieve", "hybrid"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_equal_those_without(tiny, strategy, temperature):
    options = {"strategy": strategy, "temperature": temperature, "max_context": 96}
    if strategy == "full":
        options["max_context"] = None
    kept = talk(load_backend(tiny), MESSAGES, **options)
    whole = talk(load_backend(tiny, keeps_keys=False), MESSAGES, **options)
    assert [r.text for r in kept] == [r.text for r in whole]
    assert [r.prompt_tokens for r in kept] == [r.prompt_tokens for r in whole]
    assert all(r.reused_tokens == 0 for r in whole)


def test_a_turn_computes_only_what_is_new(backend):
    replies = talk(backend, MESSAGES)
    for before, now in zip(replies, replies[1:], strict=False):
        assert now.reused_tokens >= before.prompt_tokens


def test_the_longest_common_prefix_is_kept_when_the_past_is_rewritten(backend):
    backend.start(0)
    keys = backend.model.keys
    keys.prefill([1, 10, 11, 12, 13, 14])
    _, reused = keys.prefill([1, 10, 11, 99, 98])
    assert reused == 3
    _, reused = keys.prefill([1, 10, 11, 99, 98])
    assert reused == 4, "one token is computed again, for its logits"
    _, reused = keys.prefill([2, 10])
    assert reused == 0


def test_a_saved_state_computes_the_same_bits(tiny):
    first, second = load_backend(tiny), load_backend(tiny)
    rewritten = [[1, 10, 11, 12], [1, 10, 11, 12, 13, 14, 15], [1, 10, 11, 40, 41, 42]]
    for ids in rewritten:
        first.model.keys.prefill(ids)
        first.model.keys.advance(7)
        first.model.keys.end_answer([7, 8])
    second.model.keys.restore(first.model.keys.state())
    for one, other in zip(first.model.keys._cache.layers, second.model.keys._cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)
    ids = [*rewritten[-1], 7, 8, 50]
    assert torch.equal(first.model.keys.prefill(ids)[0], second.model.keys.prefill(ids)[0])


@pytest.mark.parametrize("layer", [0, 1])
def test_a_pass_cut_off_in_the_middle_leaves_the_cache_whole(tiny, layer):
    backend, fresh = load_backend(tiny), load_backend(tiny)
    keys = backend.model.keys
    keys.prefill([1, 10, 11, 12])
    attention = backend.engine.loaded.model.model.layers[layer].self_attn
    hook = attention.o_proj.register_forward_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        keys.prefill([1, 10, 11, 12, 13, 14])
    hook.remove()
    assert {item.keys.shape[-2] for item in keys._cache.layers} == {4}
    logits, reused = keys.prefill([1, 10, 11, 12, 13, 14])
    assert reused == 4
    torch.testing.assert_close(logits, fresh.model.keys.prefill([1, 10, 11, 12, 13, 14])[0], atol=1e-4, rtol=1e-4)


def test_a_stopped_answer_keeps_the_prompt(backend):
    agent = Agent(backend, sampling=Sampling(12))
    stream = agent.stream(MESSAGES[0])
    while not next(stream):
        pass
    stream.close()
    assert agent.last.finish_reason == "interrupted"
    assert agent.ask(MESSAGES[1]).reused_tokens >= agent.backend.count([agent.messages[0]]) - 1


def build(kind, folder):
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(DEMO_MODELS["demo-base"])
    base = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "bos_token_id": 1,
            "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3}  # fmt: skip
    attention = {"intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    torch.manual_seed(0)
    if kind == "sliding":
        model = t.MistralForCausalLM(t.MistralConfig(**base, **attention, sliding_window=16))
    elif kind == "mixed":
        kinds = ["sliding_attention", "full_attention"]
        config = t.Gemma3TextConfig(**base, **attention, sliding_window=16, layer_types=kinds)
        model = t.Gemma3ForCausalLM(config)
    else:
        model = t.MambaForCausalLM(t.MambaConfig(**base, state_size=4))
    never_special(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "keeps"), [("sliding", True), ("mixed", True), ("state space", False)])
def test_other_architectures(kind, keeps, tmp_path):
    said = []
    folder = build(kind, tmp_path)
    kept = talk(load_backend(folder, warn=said.append), MESSAGES, temperature=1.0)
    whole = talk(load_backend(folder, keeps_keys=False), MESSAGES, temperature=1.0)
    assert [r.text for r in kept] == [r.text for r in whole]
    assert any(r.reused_tokens for r in kept) == keeps
    assert len(said) == (not keeps)
    assert keeps or "each turn is computed from the beginning" in said[0]


def test_long_prompts_are_read_in_parts(backend, monkeypatch):
    ids = list(range(10, 60))
    whole = KeptKeys(backend.engine.loaded.model, "m").prefill(ids)[0]
    monkeypatch.setattr("llmjobs.engines.transformers.chat_model.CHUNK", 16)
    torch.testing.assert_close(KeptKeys(backend.engine.loaded.model, "m").prefill(ids)[0], whole, atol=1e-4, rtol=1e-4)


def tiny_backend(kind, folder, **options):
    """A random model of a kind with the demo's tokenizer, as a backend."""
    import sys
    from pathlib import Path

    import transformers as t

    sys.path.append(str(Path(__file__).parents[1] / "engines"))
    from every_causal_lm import tiny_model

    tokenizer = t.AutoTokenizer.from_pretrained(DEMO_MODELS["demo-base"])
    model = tiny_model(kind, vocab_size=len(tokenizer))
    never_special(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_backend(folder, **options)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["llama", "mamba", "qwen3_next", "rwkv", "openai-gpt", "llama4_text", "zamba2"])
def test_a_turn_says_what_generate_says(kind, tmp_path):
    """State-space, hybrid and chunked models had no right way through a chat."""
    said = []
    backend = tiny_backend(kind, tmp_path, warn=said.append)
    model, tokenizer = backend.engine.loaded.model, backend.engine.loaded.tokenizer
    backend.start(5)
    sent = []
    for message in MESSAGES[:2]:
        sent.append(Message("user", message))
        ids = torch.tensor([backend.prompt.encode(tuple(sent))])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False, pad_token_id=0
        )
        wanted = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        text = "".join(backend.answer(sent, Sampling(9)))
        assert text.strip() == wanted.strip()
        sent.append(Message("assistant", text or "Yes."))


def test_keys_that_are_put_back_wrongly_are_not_kept(tiny, monkeypatch):
    """A model whose cache reads like any other but gives other logits is found when it is loaded."""
    monkeypatch.setattr(KeptKeys, "_repair", lambda keys: None)
    said = []
    backend = load_backend(tiny, warn=said.append)
    assert not backend.model.keys.keeps
    assert "the kept path differs from a plain forward by" in said[-1]


def test_values_that_are_not_numbers_end_an_answer_in_one_line(backend):
    backend.engine.loaded.model.model.layers[0].mlp.up_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"tiny: the model's output is not a number .* the weight .* damaged"):
        talk(backend, MESSAGES[:1])


@pytest.mark.parametrize(("off", "noise", "kept"), [(0.0, 0.0, True), (0.5, 0.0, False), (0.5, 5.0, True)])
def test_a_quantized_model_is_allowed_its_own_noise_on_the_same_inputs(tiny, monkeypatch, off, noise, kept):
    """The kept keys of a quantized model may differ by as much as its batches of other shapes differ."""
    model = load_backend(tiny).model.keys.model
    monkeypatch.setattr(fast_path_trials, "is_quantized", lambda model: True)
    plain = fast_path_trials.padded_logits

    def padded(model, inputs, cells, *rest):
        logits = plain(model, inputs, cells, *rest)
        return logits + noise * (torch.arange(logits.shape[-1]) % 2) * (len(inputs) == 1)

    def kept_keys(first, token, second):
        found = [plain(model, [ids], [len(ids) - 1], 0) for ids in (first, [*first, token], second)]
        return [logits + off * (torch.arange(logits.shape[-1]) % 2) for logits in found]

    monkeypatch.setattr(fast_path_trials, "padded_logits", padded)
    reason = fast_path_trials.probe_one_row(model, kept_keys)
    assert (reason is None) == kept, reason
    assert kept or "the kept path differs from a plain forward by" in reason
