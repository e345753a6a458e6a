import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scoring_models import assert_same_answers, llama_config, plain_score, random_model, score_unit

from llmjobs.benchmarks.scoring_requests import Request
from llmjobs.engines.batches import plan_unit
from llmjobs.engines.transformers import score
from llmjobs.engines.transformers.fast_path_trials import made_up_docs
from llmjobs.engines.transformers.score import Scorer
from llmjobs.errors import ModelError

DOCS = made_up_docs(211, 512)


def plan(batch_tokens: int = 96, **settings: Any) -> Any:
    return plan_unit(DOCS, max_length=512, batch_tokens=batch_tokens, **settings)


@pytest.mark.parametrize("batch_tokens", [40, 96, 300, 2000])
@pytest.mark.parametrize("path", ["shared", "cached", "plain"])
def test_scores_equal_plain_unbatched_forwards(llama: Any, path: str, batch_tokens: int) -> None:
    scorer = Scorer(llama)
    scorer.path = path
    expected = [[plain_score(llama, request) for request in doc] for doc in DOCS]
    assert_same_answers(score_unit(scorer, plan(batch_tokens)), expected, tolerance=1e-4)


def test_a_plan_that_shares_less_gives_the_same(llama: Any) -> None:
    expected = [[plain_score(llama, request) for request in doc] for doc in DOCS]
    for path in ("shared", "cached", "plain"):
        for settings in ({"sharing": False}, {"in_batch": False}):
            scorer = Scorer(llama)
            scorer.path = path
            assert_same_answers(score_unit(scorer, plan(**settings)), expected, tolerance=1e-4)


def test_inputs_too_long_are_cut_from_the_left(llama: Any) -> None:
    docs = [[Request(tuple(range(3, 60)), (7, 8))], [Request(tuple(range(9, 60)), (7,))]]
    found = score_unit(Scorer(llama), plan_unit(docs, max_length=20, batch_tokens=96))
    assert_same_answers(found, [[plain_score(llama, one, max_length=20) for one in doc] for doc in docs])


@pytest.mark.parametrize("path", ["shared", "cached", "plain"])
def test_a_fresh_scorer_repeats_any_batch_to_the_bit(llama: Any, path: str) -> None:
    unbroken = Scorer(llama)
    unbroken.path = path
    for at in range(len(plan().batches)):
        resumed = Scorer(llama)
        resumed.path = path
        assert resumed.score_batch(plan(), at) == unbroken.score_batch(plan(), at)


def test_prefixes_are_freed_after_their_last_batch(llama: Any) -> None:
    one = plan()
    scorer = Scorer(llama)
    kept = []
    for at in range(len(one.batches)):
        scorer.score_batch(one, at)
        kept.append(sum(len(one.prefixes[prefix].tokens) for prefix in scorer._kept))
    assert max(kept) == one.peak_cache_tokens
    scorer.score_batch(plan_unit(DOCS[4:], max_length=512, batch_tokens=96), 0)
    assert not scorer._kept


def test_closing_lets_the_model_go() -> None:
    model = random_model(llama_config())
    gone = weakref.ref(model)
    scorer = Scorer(model)
    scorer.probe()
    scorer.score_batch(plan(), 0)
    del model
    scorer.close()
    assert gone() is None
    assert not scorer._kept


def test_the_model_keeps_its_own_attention(llama: Any) -> None:
    before = llama.config._attn_implementation
    Scorer(llama).score_batch(plan(), 0)
    assert llama.config._attn_implementation == before


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], list[int]]:
    """Make every forward of more than so many tokens run out of memory; gives the sizes that ran."""

    def limit(tokens: int, error: BaseException) -> list[int]:
        ran: list[int] = []
        run = score.Scorer._run

        def guarded(self: Scorer, plan: Any, batch: Any) -> Any:
            if batch.tokens > tokens:
                raise error
            ran.append(batch.tokens)
            return run(self, plan, batch)

        monkeypatch.setattr(score.Scorer, "_run", guarded)
        monkeypatch.setattr(score, "free_memory", lambda: None)
        return ran

    return limit


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS)
def test_out_of_memory_halves_the_batch_aloud_and_loses_nothing(
    llama: Any, small_memory: Callable[[int, BaseException], list[int]], error: BaseException
) -> None:
    expected = [[plain_score(llama, request) for request in doc] for doc in DOCS]
    said: list[str] = []
    scorer = Scorer(llama, warn=said.append)
    ran = small_memory(50, error)
    found = score_unit(scorer, plan(2000))
    assert_same_answers(found, expected, tolerance=1e-4)
    assert max(ran) <= 50
    assert scorer.token_limit is not None
    assert said
    assert said[0] == "out of memory with 160 tokens in a batch: continuing with 80"


def test_the_limit_that_was_left_gives_a_resumed_run_the_same_batches(
    llama: Any, small_memory: Callable[[int, BaseException], list[int]]
) -> None:
    ran = small_memory(50, ERRORS[0])
    scorer = Scorer(llama, warn=lambda line: None)
    one = plan()
    scorer.score_batch(one, 0)
    limit = scorer.token_limit
    ran.clear()
    unbroken = scorer.score_batch(one, 1)
    sizes = list(ran)
    ran.clear()
    resumed = Scorer(llama, warn=lambda line: None)
    resumed.token_limit = limit
    assert resumed.score_batch(one, 1) == unbroken
    assert ran == sizes


def test_one_option_that_does_not_fit_is_an_error_of_one_line(
    llama: Any, small_memory: Callable[[int, BaseException], list[int]]
) -> None:
    small_memory(0, ERRORS[0])
    with pytest.raises(ModelError, match="out of memory with one option of"):
        Scorer(llama, warn=lambda line: None).score_batch(plan(), 0)


def test_other_errors_pass_through(llama: Any, small_memory: Callable[[int, BaseException], list[int]]) -> None:
    small_memory(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        Scorer(llama).score_batch(plan(), 0)
