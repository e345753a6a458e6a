"""What the vLLM engine asks for, and what it makes of the answers; vLLM itself is played by arithmetic."""

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest
from fake_vllm import BLOCK, END, FIELDS, LENGTH, VOCABULARY, FakeLoaded, Letters, fake_loaded, logprobs

from llmjobs.benchmarks.scoring_requests import Request
from llmjobs.engines.protocol import Asked, Extent, ProbeResult
from llmjobs.engines.reply_row import Row
from llmjobs.engines.vllm import load as loading
from llmjobs.engines.vllm.generate import Generator
from llmjobs.engines.vllm.prefix_cache import PREFIX_ONLY, shared_prefix
from llmjobs.engines.vllm.score import Scorer
from llmjobs.errors import ModelError
from llmjobs.thinking import Marks, ThinkingLimit

SHOTS = tuple(random.Random(1).randrange(2, VOCABULARY) for _ in range(3 * BLOCK + 5))
LETTERS = [(token,) for token in (5, 6, 7, 8)]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> FakeLoaded:
    monkeypatch.setattr(
        loading, "library", lambda: SimpleNamespace(SamplingParams=lambda **how: SimpleNamespace(**how))
    )
    return fake_loaded()


def asked(loaded: FakeLoaded) -> list[Any]:
    """All requests but those for the prefix alone."""
    return [one for one in loaded.llm.asked if set(vars(one[1])) != set(PREFIX_ONLY)]


def expected(request: Request) -> tuple[float, bool]:
    tokens, value, greedy = list(request.context), 0.0, True
    for token in request.continuation:
        values = logprobs(tokens)
        value, greedy = value + values[token], greedy and values[token] == max(values)
        tokens.append(token)
    return value, greedy


def score(scorer: Scorer, docs: list[list[Request]], batch_tokens: int = 1 << 12) -> dict[int, Any]:
    plan = scorer.plan(docs, max_length=LENGTH - 1, batch_tokens=batch_tokens)
    found: dict[int, Any] = {}
    for at, batch in enumerate(plan.batches):
        found |= dict(zip(batch.docs, scorer.score_batch(plan, at), strict=True))
    return found


def make_docs() -> list[list[Request]]:
    rng = random.Random(2)
    questions = [(*SHOTS, rng.randrange(2, VOCABULARY), at) for at in range(6)]
    docs = [[Request(question, letter) for letter in LETTERS] for question in questions]
    for _ in range(4):
        context = tuple(rng.randrange(2, VOCABULARY) for _ in range(rng.randrange(10, 30)))
        docs.append([Request(context, tuple(rng.randrange(2, VOCABULARY) for _ in range(n))) for n in (1, 3, 6)])
    context = SHOTS[:20]
    greedy: list[int] = []
    for _ in range(4):
        values = logprobs((*context, *greedy))
        greedy.append(values.index(max(values)))
    docs.append([Request(context, tuple(greedy)), Request(context, (*greedy[:3], 9))])
    return docs


@pytest.mark.parametrize("path", ["shared", "cached", "plain"])
@pytest.mark.parametrize("known", [FIELDS, ("prompt_logprobs",)])
def test_scores_are_the_sums_of_the_tokens(loaded: FakeLoaded, path: str, known: tuple[str, ...]) -> None:
    loaded.known, scorer, docs = frozenset(known), Scorer(loaded), make_docs()
    scorer.path = path
    found = score(scorer, docs)
    for at, doc in enumerate(docs):
        for request, one in zip(doc, found[at], strict=True):
            value, greedy = expected(request)
            assert one.loglikelihood == pytest.approx(value) and one.is_greedy == greedy
    assert found[len(docs) - 1][0].is_greedy


def test_four_letters_are_one_request(loaded: FakeLoaded) -> None:
    docs = make_docs()[:6]
    score(Scorer(loaded), docs)
    assert len(loaded.llm.asked) == len(docs) + 1  # and one for what all begin with
    assert loaded.llm.asked[0][0][:-1] == SHOTS[: len(SHOTS) // BLOCK * BLOCK]
    assert all(how.logprob_token_ids == [5, 6, 7, 8] for _, how in loaded.llm.asked[1:])
    assert all(not how.skip_reading_prefix_cache for _, how in loaded.llm.asked[1:])


def test_more_options_than_one_request_takes(loaded: FakeLoaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmjobs.engines.vllm.score.MOST_TOKEN_IDS", 3)
    doc = [Request((4, 5), (token,)) for token in range(2, 12)]
    found = score(Scorer(loaded), [doc])[0]
    assert len(asked(loaded)) == 4
    assert [one.loglikelihood for one in found] == pytest.approx([expected(one)[0] for one in doc])


def test_what_the_cache_hides_is_computed_again(loaded: FakeLoaded) -> None:
    """Tokens that came from the cache have no log-probability: wrong values must not become scores."""
    loaded.llm.cached = 2 * BLOCK
    hidden = [Request(SHOTS[:10], SHOTS[10:40])]
    right = [Request(SHOTS[: 2 * BLOCK + 1], (5, 6, 7))]
    found = score(Scorer(loaded), [hidden, right])
    assert found[0][0].loglikelihood == pytest.approx(expected(hidden[0])[0])
    assert found[1][0].loglikelihood == pytest.approx(expected(right[0])[0])
    again = [prompt for prompt, how in asked(loaded) if how.skip_reading_prefix_cache]
    assert again == [(*SHOTS[:10], *SHOTS[10:39])]


def test_a_probe_refuses_a_cache_that_is_wrong(loaded: FakeLoaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that differ wherever the cache may be read: for all, then for prompt log-probabilities only."""
    told: list[str] = []
    real, wrong_for = loaded.llm._answer, [lambda how: True]

    def wrong(prompt: Any, how: Any) -> Any:
        output = real(prompt, how)
        if hasattr(how, "skip_reading_prefix_cache") and not how.skip_reading_prefix_cache and wrong_for[0](how):
            for one in output.outputs[0].logprobs[0].values():
                one.logprob -= 0.3
        return output

    monkeypatch.setattr(loaded.llm, "_answer", wrong)
    scorer = Scorer(loaded, warn=told.append)
    found = scorer.probe()
    assert (found.path, scorer.path) == ("plain", "plain")
    assert "the shared path differs by 0.3" in found.reason and told == [f"scoring on the plain path: {found.reason}"]
    wrong_for[0] = lambda how: hasattr(how, "prompt_logprobs")
    assert scorer.probe().path == "cached"
    wrong_for[0] = lambda how: False
    assert scorer.probe().path == "shared"


def test_a_recorded_path_is_taken(loaded: FakeLoaded) -> None:
    scorer = Scorer(loaded)
    assert scorer.recall({"path": "cached", "max_difference": 0.0, "reason": "r"}) and scorer.path == "cached"
    assert scorer.recall({"path": "packed", "max_difference": 0.0, "reason": "r"}) is None
    assert scorer.path == "cached"


def test_before_each_batch_the_cache_is_brought_to_one_content(loaded: FakeLoaded) -> None:
    docs, scorer = make_docs()[:6], Scorer(loaded)
    plan = scorer.plan(docs, max_length=LENGTH - 1, batch_tokens=64)
    assert len(plan.batches) > 1
    for at in range(len(plan.batches)):
        resets = loaded.llm.resets
        scorer.score_batch(plan, at)
        assert loaded.llm.resets > resets


def test_a_missing_token_is_an_error(loaded: FakeLoaded, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loaded.llm._answer

    def without(prompt: Any, how: Any) -> Any:
        output = real(prompt, how)
        output.outputs[0].logprobs[0].pop(7, None)
        return output

    monkeypatch.setattr(loaded.llm, "_answer", without)
    with pytest.raises(ModelError, match="left out the log-probability"):
        score(Scorer(loaded), make_docs()[:1])


def test_an_error_of_vllm_is_one_line(loaded: FakeLoaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(prompt: Any, how: Any) -> Any:
        raise ValueError("no room\nat all")

    monkeypatch.setattr(loaded.llm, "_answer", refuse)
    with pytest.raises(ModelError, match="^m: vLLM could not compute a batch: no room at all; "):
        score(Scorer(loaded), make_docs()[:1])


def test_the_batch_size_fits_speed_and_prefix(loaded: FakeLoaded, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(loaded)
    monkeypatch.setattr(scorer, "_token_s", lambda: 1e-4)
    assert scorer.batch_budget(Extent(10**6, 10**5, 0)).batch_tokens == 4096
    assert scorer.batch_budget(Extent(10**6, 10**5, 1000)).batch_tokens == 8192
    monkeypatch.setattr(scorer, "_token_s", lambda: 0.05)
    slow = scorer.batch_budget(Extent(10**6, 10**5, 1000))
    assert slow.batch_tokens == 1024
    assert scorer.batch_budget(Extent(1, 1, 1), kept=slow.to_builtin()) == slow


def test_shared_prefixes_are_whole_blocks() -> None:
    assert shared_prefix([(*SHOTS, 1, 2), (*SHOTS, 3)], BLOCK) == SHOTS[: 3 * BLOCK]
    assert shared_prefix([SHOTS], BLOCK) == ()
    same = SHOTS[: 2 * BLOCK]
    assert shared_prefix([same, same], BLOCK) == same[:BLOCK]  # a token is left to read


# Generation: the rows of the other engines are the reference.


def reference(one: Asked) -> Row:
    """The row as it is generated token by token, greedy."""
    row = Row(one, LENGTH - 1)
    while not row.finish_reason:
        values = logprobs((*row.context, *row.token_ids))
        row.append(values.index(max(values)), Letters(), frozenset({END}))
    return row


def generator(loaded: FakeLoaded, path: str = "continuous") -> Generator:
    return Generator(loaded, ProbeResult(path, None, "test"))


def letters(text: str) -> tuple[int, ...]:
    return tuple(ord(one) - ord("a") if one.islower() else ord(one) - ord("A") + 26 for one in text)


LIMITS = [
    ThinkingLimit(Marks("k", "m"), begun, tokens, answer, letters("m"))
    for begun in (True, False)
    for tokens in (1, 4, 9)
    for answer in (2, 6)
]


@pytest.mark.parametrize("thinking", [None, *LIMITS])
def test_replies_end_as_on_the_other_engines(loaded: FakeLoaded, thinking: ThinkingLimit | None) -> None:
    rng = random.Random(4)
    requests = [
        Asked(
            (*SHOTS, *(rng.randrange(2, VOCABULARY) for _ in range(rng.randrange(1, 9)))),
            max_new_tokens=rng.randrange(1, 25),
            stop=("b", "cd"),
            thinking=thinking,
        )
        for _ in range(40)
    ]
    found = generator(loaded).generate(requests)
    for one, request in zip(found, requests, strict=True):
        row = reference(request).generation(Letters())
        assert one == row
    reasons = {one.finish_reason for one in found}
    assert reasons <= {"eos", "stop", "length"} and len(reasons) > 1


def test_a_sampled_row_depends_on_its_seed_only(loaded: FakeLoaded) -> None:
    limit = LIMITS[1]
    rows = [Asked((*SHOTS, at), 12, temperature=0.9, seed=at, thinking=limit if at % 2 else None) for at in range(2, 9)]
    together = generator(loaded).generate(rows)
    assert [generator(loaded).generate([one])[0] for one in rows] == together
    assert generator(loaded, "single").generate(rows[::-1])[::-1] == together
    seeds = [how.seed for _, how in asked(loaded) if hasattr(how, "seed")]
    assert len(set(seeds)) > len(rows)  # a row that goes on draws other numbers


def test_no_numbers_are_an_error_of_the_row(loaded: FakeLoaded) -> None:
    loaded.llm.broken = {len(SHOTS) + 3}
    bad, good = generator(loaded).generate([Asked(SHOTS, 9), Asked(SHOTS[:9], 9)])
    assert bad.finish_reason == "error" and "after 3 new tokens" in str(bad.error)
    assert good.finish_reason != "error"


def test_a_long_context_is_cut_and_an_empty_one_refused(loaded: FakeLoaded) -> None:
    reply = generator(loaded).generate([Asked(SHOTS * 4, 5)])[0]
    assert reply.cut_tokens == 4 * len(SHOTS) - (LENGTH - 1 - 5)
    with pytest.raises(ModelError, match="at least one token"):
        generator(loaded).generate([Asked(())])


def test_the_checkpoints_penalty_is_applied_and_recorded(loaded: FakeLoaded) -> None:
    loaded.repetition_penalty = 1.2
    made = generator(loaded)
    made.generate([Asked(SHOTS, 2)])
    assert all(how.repetition_penalty == 1.2 for _, how in asked(loaded))
    assert made.to_record()["logits_processors"] == ["RepetitionPenalty"]
    assert math.isclose(loaded.repetition_penalty, 1.2)
