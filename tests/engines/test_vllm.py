"""The real vLLM against transformers on the same demo model: log-likelihoods, replies, chat, and what is recorded.

Needs vllm (tools/vllm_environment.sh makes an environment for CPUs); skipped where it is not installed.
"""

import random
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from llmjobs.benchmarks.scoring_requests import Request, Score
from llmjobs.engines.protocol import Asked, Extent, Sampling
from llmjobs.engines.registry import open_model
from llmjobs.engines.vllm.load import LoadedModel
from llmjobs.errors import ModelError
from llmjobs.manifest.models import ModelSpec

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed (tools/vllm_environment.sh)"),
    pytest.mark.filterwarnings("ignore"),
]
MODEL = "llmjobs/demo-base"
TOLERANCE = 1e-4
"""Nats a scored token, in float32; 1.1e-5 was seen."""
Docs = list[list[Request]]


def spec(**settings: Any) -> ModelSpec:
    return ModelSpec.model_validate({"id": MODEL, "dtype": "float32", "device": "cpu", **settings})


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    loaded = open_model(spec(engine="vllm"), threads=1)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def other() -> Iterator[Any]:
    loaded = open_model(spec(), threads=1)
    yield loaded
    loaded.close()


def tokens(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(3, 800) for _ in range(count))


def make_docs() -> Docs:
    """Docs of every shape: letters behind shots, endings of several tokens, one suffix behind two contexts."""
    rng = random.Random(1)
    shots = tokens(rng, 200)
    docs = []
    for _ in range(12):
        question = shots + tokens(rng, rng.randrange(4, 40))
        docs.append([Request(question, (letter,)) for letter in (5, 6, 7, 8)])
    for _ in range(12):
        context = tokens(rng, rng.randrange(10, 100))
        docs.append([Request(context, tokens(rng, rng.randrange(1, 12))) for _ in range(4)])
    context, suffix = tokens(rng, 20), tokens(rng, 5)
    docs.append([Request(context + option, suffix) for option in (tokens(rng, 2), tokens(rng, 3))])
    docs.append([Request(shots, tokens(rng, 70))])
    docs.append([Request(shots[:64], tokens(rng, 3))])  # ends with a block
    docs.append([Request((3,), tokens(rng, 1))])
    return docs


def scores(engine: Any, docs: Docs, *, path: str | None = None, batch_tokens: int = 1024) -> dict[int, list[Score]]:
    scorer = engine.scorer()
    if path:
        scorer.path = path
    plan = scorer.plan(docs, max_length=1000, batch_tokens=batch_tokens)
    found: dict[int, list[Score]] = {}
    for at, batch in enumerate(plan.batches):
        found |= dict(zip(batch.docs, scorer.score_batch(plan, at), strict=True))
    return found


def largest(docs: Docs, one: dict[int, list[Score]], two: dict[int, list[Score]]) -> float:
    """Largest difference in nats a scored token."""
    return max(
        abs(a.loglikelihood - b.loglikelihood) / len(request.continuation)
        for at, doc in enumerate(docs)
        for a, b, request in zip(one[at], two[at], doc, strict=True)
    )


def greedy(found: dict[int, list[Score]]) -> list[list[bool]]:
    return [[one.is_greedy for one in found[at]] for at in sorted(found)]


@pytest.mark.parametrize("path", ["shared", "cached", "plain"])
def test_scores_equal_transformers(engine: Any, other: Any, path: str) -> None:
    docs = make_docs()
    found, expected = scores(engine, docs, path=path), scores(other, docs)
    assert largest(docs, found, expected) < TOLERANCE
    assert greedy(found) == greedy(expected)


def test_an_older_version_gives_the_same(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the newer sampling parameters, the whole vocabulary is asked for."""
    docs = make_docs()
    newest = scores(engine, docs)
    known = engine.loaded.fields - {"logprob_token_ids", "skip_reading_prefix_cache"}
    monkeypatch.setattr(LoadedModel, "fields", property(lambda self: known))
    older = scores(engine, docs)
    assert largest(docs, older, newest) < TOLERANCE and greedy(older) == greedy(newest)


def test_the_cache_is_read_and_the_probe_finds_it_right(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = engine.scorer().probe()
    assert found.path == "shared" and found.max_difference is not None and found.max_difference < 1e-3
    cached: list[int] = []
    real = LoadedModel.run

    def run(self: LoadedModel, prompts: Any, settings: Any) -> Any:
        outputs = real(self, prompts, settings)
        cached.extend(one.num_cached_tokens or 0 for one in outputs)
        return outputs

    monkeypatch.setattr(LoadedModel, "run", run)
    scores(engine, make_docs()[:12])
    assert sum(one >= 192 for one in cached) >= 12
    cached.clear()
    scores(engine, make_docs()[:12], path="plain")
    assert set(cached) == {0}


def test_a_batch_does_not_depend_on_those_before(engine: Any) -> None:
    docs, scorer = make_docs(), engine.scorer()
    plan = scorer.plan(docs, max_length=1000, batch_tokens=256)
    assert len(plan.batches) > 4
    once = [scorer.score_batch(plan, at) for at in range(len(plan.batches))]
    assert [scorer.score_batch(plan, at) for at in reversed(range(len(plan.batches)))][::-1] == once
    engine.generator().generate([Asked(docs[0][0].context, max_new_tokens=3)])  # leaves other blocks in the cache
    for at in (0, len(plan.batches) // 2, len(plan.batches) - 1):
        assert engine.scorer().score_batch(plan, at) == once[at]


def test_the_batch_size_is_measured(engine: Any) -> None:
    budget = engine.scorer().batch_budget(Extent(100_000, 10_000, 200))
    assert 1024 <= budget.batch_tokens <= 65536 and budget.time is not None and budget.time.token_s > 0


def asked_for() -> list[Asked]:
    rng = random.Random(3)
    shots = tokens(rng, 100)
    return [
        Asked(shots + tokens(rng, rng.randrange(1, 30)), max_new_tokens=16, stop=(" one",), seed=at) for at in range(20)
    ]


def test_greedy_replies_equal_transformers(engine: Any, other: Any) -> None:
    asked = asked_for()
    assert engine.generator().generate(asked) == other.generator().generate(asked)


def test_sampled_replies_depend_on_the_rows_seed_only(engine: Any) -> None:
    rows = asked_for()
    asked = [Asked(one.context, 16, one.stop, temperature=0.9, top_p=0.95, seed=one.seed) for one in rows]
    first = engine.generator()
    first.keep_prefix(asked)
    whole = [*first.generate(asked[:8]), *first.generate(asked[8:16]), *first.generate(asked[16:])]
    fresh = engine.generator()
    fresh.keep_prefix(asked)
    assert fresh.generate(asked[8:16]) == whole[8:16]
    assert [one.token_ids for one in engine.generator(path="single").generate(asked)] == [
        one.token_ids for one in whole
    ]
    assert len({one.token_ids for one in whole}) > len(whole) // 4


def talk(model: Any, prompt: list[int], count: int, sampling: Sampling) -> tuple[list[int], int]:
    reused = model.read(tuple(prompt), count)
    said = [model.next_token(sampling) for _ in range(count)]
    model.finish(keep=True)
    return said, reused


def test_greedy_chat_equals_transformers(engine: Any, other: Any) -> None:
    mine, theirs, prompt = engine.chat_model(), other.chat_model(), list(range(10, 110))
    for _ in range(3):
        first, reused = talk(mine, prompt, 6, Sampling())
        assert talk(theirs, prompt, 6, Sampling())[0] == first
        prompt = [*prompt, *first, *range(200, 240)]
    assert reused >= 96


def test_a_resumed_chat_goes_on_alike(engine: Any) -> None:
    mine, prompt, sampling = engine.chat_model(), list(range(10, 110)), Sampling(temperature=0.9)
    mine.seed(5)
    first, _ = talk(mine, prompt, 6, sampling)
    state = mine.state()
    second = [*prompt, *first, *range(200, 240)]
    again, reused = talk(mine, second, 6, sampling)
    resumed = engine.chat_model()
    resumed.restore(state)
    assert talk(resumed, second, 6, sampling) == (again, reused) and reused
    mine.read(tuple(second), 20)
    mine.next_token(sampling)
    mine.finish(keep=False)  # an answer that is cut off leaves nothing running
    assert not engine.loaded.llm.llm_engine.has_unfinished_requests()


def test_what_is_recorded(engine: Any, other: Any) -> None:
    mine, theirs = engine.description, other.description
    for name in ("architecture", "device", "dtype", "quantization", "parameters", "revision"):
        assert getattr(mine, name) == getattr(theirs, name)
    assert mine.weight_bytes == pytest.approx(theirs.weight_bytes, rel=1e-3)  # without the tables beside the weights
    assert (mine.engine, mine.attention, mine.context_length) == ("vllm", "CPU_ATTN", theirs.context_length)
    assert engine.effective == {
        "engine": "vllm",
        "device": "cpu",
        "dtype": "float32",
        "quantization": "none",
        "threads": 1,
        "attention": "CPU_ATTN",
        "kv_cache": "float32",
        "max_model_len": 2048,
        "tensor_parallel_size": 1,
    }
    assert engine.max_length == 2047


def test_speed_is_measured(engine: Any) -> None:
    short, long = engine.measure_speed([64, 4000], rows=4, new_tokens=8)
    assert short.prefill_tokens_per_s and short.decode_tokens_per_s and short.ttft_s
    assert long.reason


def test_threads_and_random_numbers_stay_ours(engine: Any) -> None:
    """VLLM replaces torch's function and seeds the process."""
    import torch

    torch.set_num_threads(2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"id": "llmjobs/demo-tiny"}, "vLLM cannot run llmjobs/demo-tiny here: Unsupported CPU attention"),
        ({"device": "cuda"}, "device is cuda, but the installed vLLM runs on cpu"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size is for GPUs"),
        ({"max_model_len": 4096}, "max_model_len is 4,096, but the model's context length is 2,048 tokens"),
    ],
)
def test_what_cannot_run_is_one_line(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError) as raised:
        open_model(spec(engine="vllm", **settings), threads=1)
    assert told in str(raised.value) and "\n" not in str(raised.value)
