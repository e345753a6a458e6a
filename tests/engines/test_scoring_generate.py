import random
from typing import Any

import pytest
import torch
from scoring_families import family_config
from scoring_models import random_model

from llmjobs.engines.transformers import decode_steps
from llmjobs.engines.transformers.generate import Asked, Generation, Generator, Sampling, next_tokens
from llmjobs.errors import ModelError

RNG = random.Random(3)


class Letters:
    """A tokenizer of one character a token."""

    eos_token_id = 2

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(chr(40 + one) for one in ids)


def tokens(count: int) -> list[int]:
    return [RNG.randrange(3, 211) for _ in range(count)]


def generate(generator: Generator, contexts: Any, seeds: Any = None, **settings: Any) -> list[Generation]:
    """Continue each context, all with the same settings."""
    rows = zip(contexts, seeds or [0] * len(contexts), strict=True)
    return generator.generate([Asked(context, seed=seed, **settings) for context, seed in rows])


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
    found = generate(Generator(model, Letters(), row_limit=3), contexts, max_new_tokens=9)
    for context, one in zip(contexts, found, strict=True):
        assert list(one.token_ids) == greedy(model, context, 9)[: one.new_tokens]
        assert (one.prompt_tokens, one.new_tokens) == (len(context), len(one.token_ids))


def test_what_all_contexts_begin_with_is_computed_once(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[tuple[int, ...]] = []
    step = decode_steps.step

    def counting(model: Any, new: Any, *rest: Any) -> Any:
        widths.append(tuple(new.shape))
        return step(model, new, *rest)

    generator = Generator(llama, Letters(), row_limit=2)
    monkeypatch.setattr(decode_steps, "step", counting)
    generate(generator, [PREFIX + one for one in CONTEXTS], max_new_tokens=1)
    assert widths == [(1, 40), (2, 7), (2, 4)]


def test_a_kept_prefix_serves_later_calls_that_begin_with_it(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = [PREFIX + one for one in CONTEXTS]
    alone = [generate(Generator(llama, Letters()), [one], max_new_tokens=5)[0].token_ids for one in contexts]
    computed: list[int] = []
    step = decode_steps.step
    generator = Generator(llama, Letters())
    monkeypatch.setattr(
        decode_steps, "step", lambda model, new, *rest: computed.append(new.shape[1]) or step(model, new, *rest)
    )
    generator.keep_prefix([Asked(one, max_new_tokens=5) for one in contexts])
    halves = [generate(generator, some, max_new_tokens=5) for some in (contexts[:2], contexts[2:])]
    assert [one.token_ids for half in halves for one in half] == alone
    assert [width for width in computed if width >= 32] == [40]
    other = [PREFIX[:36] + one for one in CONTEXTS]
    generate(generator, other, max_new_tokens=5)
    assert [width for width in computed if width >= 32] == [40, 36]


def test_text_ends_before_the_first_stop_string(llama: Any) -> None:
    whole = generate(Generator(llama, Letters()), CONTEXTS[:1], max_new_tokens=9)[0]
    stop = whole.text[3:5]
    found = generate(Generator(llama, Letters()), CONTEXTS[:1], max_new_tokens=9, stop=["~~", stop])[0]
    assert (found.text, found.finish_reason) == (whole.text[: whole.text.find(stop)], "stop")
    assert found.token_ids == whole.token_ids[: found.new_tokens]
    assert whole.finish_reason == "length"


def test_an_end_token_ends_the_row_and_is_not_in_the_text(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generate(Generator(llama, Letters()), CONTEXTS[:1], max_new_tokens=9)[0]
    monkeypatch.setattr(llama.generation_config, "eos_token_id", [2, whole.token_ids[4]])
    found = generate(Generator(llama, Letters()), CONTEXTS[:1], max_new_tokens=9)[0]
    first = whole.token_ids.index(whole.token_ids[4])
    assert (found.finish_reason, found.new_tokens, found.text) == ("eos", first + 1, whole.text[:first])


def test_a_seed_gives_the_same_whatever_the_batch(llama: Any) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 9, "temperature": 0.8, "top_p": 0.9}
    seeds = [1, 2, 3, 1]
    found = generate(Generator(llama, Letters()), CONTEXTS, seeds=seeds, **settings)
    alone = [
        generate(Generator(llama, Letters()), [context], seeds=[seed], **settings)[0]
        for context, seed in zip(CONTEXTS, seeds, strict=True)
    ]
    assert found == alone
    other = generate(Generator(llama, Letters()), CONTEXTS, seeds=[4, 5, 6, 7], **settings)
    assert other != found


def test_a_context_without_room_is_cut_from_the_left(llama: Any) -> None:
    context = tokens(600)
    found = generate(Generator(llama, Letters()), [context], max_new_tokens=12)[0]
    assert found.prompt_tokens == 500
    assert list(found.token_ids) == greedy(llama, context[-500:], 12)[: found.new_tokens]


def test_out_of_memory_halves_the_rows_aloud_and_repeats_them(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = generate(Generator(llama, Letters()), CONTEXTS, max_new_tokens=5, temperature=1.0)
    said: list[str] = []
    generator = Generator(llama, Letters(), warn=said.append)
    step = decode_steps.step

    def small(model: Any, new: Any, *rest: Any) -> Any:
        if len(new) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(model, new, *rest)

    monkeypatch.setattr(decode_steps, "step", small)
    assert generate(generator, CONTEXTS, max_new_tokens=5, temperature=1.0) == expected
    assert generator.row_limit == 1
    assert said[0] == "out of memory with 4 rows at once: continuing with 2"
    monkeypatch.setattr(decode_steps, "step", lambda *args: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(ModelError, match="out of memory with one row"):
        generate(generator, CONTEXTS, max_new_tokens=5)


def test_each_row_keeps_its_own_settings(llama: Any) -> None:
    long, short = PREFIX + tokens(460), PREFIX + tokens(9)
    whole = generate(Generator(llama, Letters()), [short], max_new_tokens=20)[0]
    stop = whole.text[4:6]
    asked = [
        Asked(short, max_new_tokens=300),
        Asked(long, max_new_tokens=5),
        Asked(short, max_new_tokens=20, stop=[stop]),
        Asked(short, max_new_tokens=20, temperature=1.0, seed=4),
    ]
    together = Generator(llama, Letters()).generate(asked)
    assert together == [Generator(llama, Letters()).generate([one])[0] for one in asked]
    assert [one.cut_tokens for one in together] == [0, 0, 0, 0]
    assert [one.prompt_tokens for one in together] == [49, 500, 49, 49]
    assert [one.new_tokens for one in together[:2]] == [300, 5]
    assert together[2].finish_reason == "stop"
    assert together[3].token_ids != whole.token_ids


def test_a_cut_context_says_so(llama: Any) -> None:
    (found,) = Generator(llama, Letters()).generate([Asked(tokens(600), max_new_tokens=12)])
    assert (found.prompt_tokens, found.cut_tokens) == (500, 100)


def test_mixed_settings_draw_as_each_alone() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    how = [Sampling(0.7, 0.8), Sampling(), Sampling(1.3, 1.0)]

    def seeded(rows: list[int]) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(row) for row in rows]

    alone = [next_tokens(logits[at : at + 1], [how[at]], seeded([at]))[0] for at in range(3)]
    assert next_tokens(logits, how, seeded([0, 1, 2])) == alone


@pytest.mark.parametrize(
    ("dtype", "cause"), [(torch.float32, "damaged"), (torch.float16, "float16 overflows")], ids=str
)
def test_values_that_are_not_numbers_end_a_row_with_the_cause(dtype: torch.dtype, cause: str) -> None:
    model = random_model(family_config("llama"), dtype)
    if dtype == torch.float32:
        model.model.layers[1].mlp.up_proj.weight.data[3, 4] = torch.nan
    else:
        model.model.layers[0].mlp.down_proj.weight.data[:] = 6e4
        model.model.layers[0].post_attention_layernorm.weight.data[:] = 1e3
    for found in Generator(model, Letters(), warn=lambda line: None).generate([Asked(tokens(5)), Asked(tokens(7))]):
        assert found.finish_reason == "error"
        assert found.error is not None
        assert "not a number" in found.error
        assert cause in found.error


def test_one_row_without_numbers_leaves_the_others_alone(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = generate(Generator(llama, Letters()), CONTEXTS, max_new_tokens=5)
    generator = Generator(llama, Letters())
    step = decode_steps.step

    def damaged(*given: Any) -> Any:
        logits, cache = step(*given)
        logits = logits.clone()
        if len(logits) == len(CONTEXTS):
            logits[0] = torch.nan
        return logits, cache

    monkeypatch.setattr(decode_steps, "step", damaged)
    found = generate(generator, CONTEXTS, max_new_tokens=5)
    assert [one.finish_reason for one in found].count("error") == 1
    assert [one for one in found if not one.error] == [
        one for one, now in zip(expected, found, strict=True) if not now.error
    ]


def test_a_repetition_penalty_of_the_checkpoint_applies_as_in_generate(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(family_config("llama"))
    contexts = [PREFIX + one for one in CONTEXTS]
    without = [greedy(model, one, 12) for one in contexts]
    model.generation_config.repetition_penalty = 1.8
    generator = Generator(model, Letters())
    assert generator.processors == ("RepetitionPenalty",)
    found = [list(one.token_ids) for one in generate(generator, contexts, max_new_tokens=12)]
    assert found == [greedy(model, one, 12)[: len(row)] for one, row in zip(contexts, found, strict=True)]
    assert found != [one[: len(row)] for one, row in zip(without, found, strict=True)]


def refuse(*args: Any, **named: Any) -> Any:
    raise NotImplementedError("not in this model")


def test_a_model_without_generate_code_reads_the_whole_input_for_each_token(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(family_config("gpt2"))
    contexts = [PREFIX + one for one in CONTEXTS]
    expected = [greedy(model, one, 6) for one in contexts]
    monkeypatch.setattr(decode_steps, "step", refuse)
    monkeypatch.setattr(decode_steps, "prepare", refuse)
    said: list[str] = []
    generator = Generator(model, Letters(), warn=said.append)
    found = [list(one.token_ids) for one in generate(generator, contexts, max_new_tokens=6)]
    assert found == [one[: len(row)] for one, row in zip(expected, found, strict=True)]
    assert said[0].startswith("generating on the whole path: the shared path failed: not in this")


def test_a_model_that_cannot_generate_at_all_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(family_config("gpt2"))
    monkeypatch.setattr(model, "forward", refuse)
    with pytest.raises(ModelError, match=r"^GPT2LMHeadModel cannot be run .*; update .*, or use another model"):
        Generator(model, Letters())


def test_an_empty_context_is_refused(llama: Any) -> None:
    with pytest.raises(ModelError, match="at least one token"):
        generate(Generator(llama, Letters()), [[1], []])


def test_draws_follow_the_probabilities_and_top_p() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(4000, 1)
    generators = [torch.Generator().manual_seed(seed) for seed in range(4000)]
    drawn = torch.tensor(next_tokens(logits, [Sampling(1.0, 0.9)] * 4000, generators))
    counts = torch.bincount(drawn, minlength=4) / 4000
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95, atol=0.03, rtol=0.0)
    assert next_tokens(logits[:2], [Sampling(1.0, 0.0)] * 2, generators[:2]) == [0, 0]
    assert next_tokens(logits[:2], [Sampling()] * 2, generators[:2]) == [0, 0]
