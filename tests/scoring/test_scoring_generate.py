import random
from typing import Any

import pytest
import torch
from scoring_families import family_config
from scoring_models import random_model

from llmjobs.errors import ModelError
from llmjobs.scoring import decoding, generate
from llmjobs.scoring.generate import Generator
from llmjobs.scoring.sampling import Sampling, next_tokens

RNG = random.Random(3)


class Letters:
    """A tokenizer of one character a token."""

    eos_token_id = 2

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(chr(40 + one) for one in ids)


def tokens(count: int) -> list[int]:
    return [RNG.randrange(3, 211) for _ in range(count)]


CONTEXTS = [tokens(4), tokens(2), tokens(7), tokens(4)]
PREFIX = tokens(40)


def greedy(model: Any, context: list[int], count: int) -> list[int]:
    """What transformers' own unbatched generate gives."""
    given = torch.tensor([context])
    mask = torch.ones_like(given)
    out = model.generate(given, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0)
    return list(out[0, len(context) :].tolist())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["llama", "gpt2", "opt", "bloom", "falcon-alibi", "mistral-window", "gemma3", "mamba", "mixtral"]
)
def test_a_batch_gives_what_single_rows_give(name: str) -> None:
    model = random_model(family_config(name))
    contexts = [PREFIX + one for one in CONTEXTS]
    found = Generator(model, Letters(), row_limit=3).generate_until(contexts, max_new_tokens=9)
    for context, one in zip(contexts, found, strict=True):
        assert list(one.token_ids) == greedy(model, context, 9)[: one.new_tokens]
        assert (one.prompt_tokens, one.new_tokens) == (len(context), len(one.token_ids))


def test_what_all_contexts_begin_with_is_computed_once(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[tuple[int, ...]] = []
    step = decoding.step

    def counting(model: Any, new: Any, *rest: Any) -> Any:
        widths.append(tuple(new.shape))
        return step(model, new, *rest)

    monkeypatch.setattr(decoding, "step", counting)
    monkeypatch.setattr(generate, "step", counting)
    Generator(llama, Letters(), row_limit=2).generate_until([PREFIX + one for one in CONTEXTS], max_new_tokens=1)
    assert widths == [(1, 40), (2, 7), (2, 4)]


def test_a_kept_prefix_serves_later_calls_that_begin_with_it(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = [PREFIX + one for one in CONTEXTS]
    alone = [Generator(llama, Letters()).generate_until([one], max_new_tokens=5)[0].token_ids for one in contexts]
    computed: list[int] = []
    step = decoding.step
    monkeypatch.setattr(
        decoding, "step", lambda model, new, *rest: computed.append(new.shape[1]) or step(model, new, *rest)
    )
    generator = Generator(llama, Letters())
    generator.keep_prefix(contexts)
    halves = [generator.generate_until(some, max_new_tokens=5) for some in (contexts[:2], contexts[2:])]
    assert [one.token_ids for half in halves for one in half] == alone
    assert computed == [40]
    other = [PREFIX[:36] + one for one in CONTEXTS]
    generator.generate_until(other, max_new_tokens=5)
    assert computed == [40, 36]


def test_text_ends_before_the_first_stop_string(llama: Any) -> None:
    whole = Generator(llama, Letters()).generate_until(CONTEXTS[:1], max_new_tokens=9)[0]
    stop = whole.text[3:5]
    found = Generator(llama, Letters()).generate_until(CONTEXTS[:1], max_new_tokens=9, stop=["~~", stop])[0]
    assert (found.text, found.finish_reason) == (whole.text[: whole.text.find(stop)], "stop")
    assert found.token_ids == whole.token_ids[: found.new_tokens]
    assert whole.finish_reason == "length"


def test_an_end_token_ends_the_row_and_is_not_in_the_text(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Generator(llama, Letters()).generate_until(CONTEXTS[:1], max_new_tokens=9)[0]
    monkeypatch.setattr(llama.generation_config, "eos_token_id", [2, whole.token_ids[4]])
    found = Generator(llama, Letters()).generate_until(CONTEXTS[:1], max_new_tokens=9)[0]
    first = whole.token_ids.index(whole.token_ids[4])
    assert (found.finish_reason, found.new_tokens, found.text) == ("eos", first + 1, whole.text[:first])


def test_a_seed_gives_the_same_whatever_the_batch(llama: Any) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 9, "temperature": 0.8, "top_p": 0.9}
    seeds = [1, 2, 3, 1]
    found = Generator(llama, Letters()).generate_until(CONTEXTS, seeds=seeds, **settings)
    alone = [
        Generator(llama, Letters()).generate_until([context], seeds=[seed], **settings)[0]
        for context, seed in zip(CONTEXTS, seeds, strict=True)
    ]
    assert found == alone
    other = Generator(llama, Letters()).generate_until(CONTEXTS, seeds=[4, 5, 6, 7], **settings)
    assert other != found


def test_a_context_without_room_is_cut_from_the_left(llama: Any) -> None:
    context = tokens(600)
    found = Generator(llama, Letters()).generate_until([context], max_new_tokens=12)[0]
    assert found.prompt_tokens == 500
    assert list(found.token_ids) == greedy(llama, context[-500:], 12)[: found.new_tokens]


def test_out_of_memory_halves_the_rows_aloud_and_repeats_them(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Generator(llama, Letters()).generate_until(CONTEXTS, max_new_tokens=5, temperature=1.0)
    step = generate.step

    def small(model: Any, new: Any, *rest: Any) -> Any:
        if len(new) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(model, new, *rest)

    monkeypatch.setattr(generate, "step", small)
    said: list[str] = []
    generator = Generator(llama, Letters(), warn=said.append)
    assert generator.generate_until(CONTEXTS, max_new_tokens=5, temperature=1.0) == expected
    assert generator.row_limit == 1
    assert said[0] == "out of memory with 4 rows at once: going on with 2"
    monkeypatch.setattr(generate, "step", lambda *args: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(ModelError, match="out of memory with one row"):
        generator.generate_until(CONTEXTS, max_new_tokens=5)


def test_an_empty_context_is_refused(llama: Any) -> None:
    with pytest.raises(ModelError, match="at least one token"):
        Generator(llama, Letters()).generate_until([[1], []])


def test_draws_follow_the_probabilities_and_top_p() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(4000, 1)
    generators = [torch.Generator().manual_seed(seed) for seed in range(4000)]
    counts = torch.bincount(torch.tensor(next_tokens(logits, Sampling(1.0, 0.9), generators)), minlength=4) / 4000
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95, atol=0.03, rtol=0.0)
    assert next_tokens(logits[:2], Sampling(1.0, 0.0), generators[:2]) == [0, 0]
    assert next_tokens(logits[:2], Sampling(), generators[:2]) == [0, 0]
