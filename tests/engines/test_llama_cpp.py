"""GGUF files on llama.cpp against transformers on the same weights: log-likelihoods, replies, chat, quantization."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_models import quantize, write_llama
from random_llama import make_llama

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from llmjobs.benchmarks.scoring_requests import Request, Score  # noqa: E402
from llmjobs.demo import DEMO_MODELS  # noqa: E402
from llmjobs.engines.llama_cpp import engine as llama  # noqa: E402
from llmjobs.engines.llama_cpp.context import Context  # noqa: E402
from llmjobs.engines.llama_cpp.engine import LlamaEngine, open_model  # noqa: E402
from llmjobs.engines.llama_cpp.tokenizer import check_same_tokens  # noqa: E402
from llmjobs.engines.protocol import Asked, Sampling  # noqa: E402
from llmjobs.engines.registry import open_model as open_any  # noqa: E402
from llmjobs.errors import MissingPackageError, ModelError  # noqa: E402
from llmjobs.manifest.models import ModelSpec  # noqa: E402
from llmjobs.thinking import Marks, ThinkingLimit  # noqa: E402

Docs = list[list[Request]]
MAX_LENGTH = 512


def spec(path: Path | str, **settings: Any) -> ModelSpec:
    """A model of this file with 32-bit keys and values, which transformers has too."""
    return ModelSpec.model_validate({"id": str(path), "name": "m", "device": "cpu", "kv_cache": "f32", **settings})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama in transformers' form."""
    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def gguf(folder: Path) -> Path:
    """The same as an F32 GGUF file."""
    return write_llama(folder, folder / "tiny.gguf")


@pytest.fixture(scope="module")
def engine(gguf: Path) -> Iterator[LlamaEngine]:
    """The file, loaded."""
    loaded = open_model(spec(gguf), threads=1)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def other(folder: Path) -> Iterator[Any]:
    """The same weights on transformers."""
    loaded = open_any(
        ModelSpec.model_validate({"id": str(folder), "name": "t", "device": "cpu", "dtype": "float32"}), threads=1
    )
    yield loaded
    loaded.close()


def make_docs(vocabulary: int, seed: int = 1) -> Docs:
    """Docs of various shapes: letters after shots, endings of several tokens, one suffix after two contexts."""
    rng = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, vocabulary) for _ in range(count))

    shots = tokens(120)
    docs = [[Request(shots + tokens(rng.randrange(4, 50)), (at,)) for at in (5, 6, 7, 8)] for _ in range(6)]
    for _ in range(12):
        question = shots + tokens(rng.randrange(4, 40))
        docs.append([Request(question, (letter,)) for letter in (5, 6, 7, 8)])
    for _ in range(8):
        context = tokens(rng.randrange(10, 40))
        docs.append([Request(context, tokens(rng.randrange(1, 12))) for _ in range(4)])
    context, suffix = tokens(20), tokens(5)
    docs.append([Request(context + option, suffix) for option in (tokens(2), tokens(3))])
    return docs


def scores(engine: Any, docs: Docs, *, path: str | None = None, batch_tokens: int = 256) -> dict[int, list[Score]]:
    """All scores by doc."""
    scorer = engine.scorer()
    if path is None:
        scorer.probe()
    else:
        scorer.path = path
    plan = scorer.plan(docs, max_length=MAX_LENGTH, batch_tokens=batch_tokens)
    found: dict[int, list[Score]] = {}
    for at, batch in enumerate(plan.batches):
        found |= dict(zip(batch.docs, scorer.score_batch(plan, at), strict=True))
    scorer.close()
    return found


def largest(docs: Docs, one: dict[int, list[Score]], two: dict[int, list[Score]]) -> float:
    """Largest difference in nats a scored token."""
    return max(
        abs(a.loglikelihood - b.loglikelihood) / len(request.continuation)
        for at, doc in enumerate(docs)
        for a, b, request in zip(one[at], two[at], doc, strict=True)
    )


@pytest.mark.parametrize("path", ["shared", "cached", "plain"])
@pytest.mark.parametrize("batch_tokens", [64, 2048])
def test_scores_equal_transformers(engine: LlamaEngine, other: Any, path: str, batch_tokens: int) -> None:
    docs = make_docs(engine.loaded.vocabulary)
    found = scores(engine, docs, path=path, batch_tokens=batch_tokens)
    expected = scores(other, docs)
    assert largest(docs, found, expected) < 1e-3
    assert [[one.is_greedy for one in found[at]] for at in sorted(found)] == [
        [one.is_greedy for one in expected[at]] for at in sorted(expected)
    ]


def test_a_demo_model_scores_as_on_transformers(tmp_path: Path) -> None:
    folder = Path(DEMO_MODELS["demo-base"])
    docs = make_docs(800)
    mine = open_model(spec(write_llama(folder, tmp_path / "demo.gguf", pre="llama-bpe")), threads=1)
    theirs = open_any(
        ModelSpec.model_validate({"id": "llmjobs/demo-base", "device": "cpu", "dtype": "float32"}), threads=1
    )
    try:
        found, expected = scores(mine, docs), scores(theirs, docs)
        assert largest(docs, found, expected) < 1e-3
        for at, doc in found.items():
            best = max(range(len(doc)), key=lambda one: doc[one].loglikelihood)
            assert best == max(range(len(doc)), key=lambda one: expected[at][one].loglikelihood)
    finally:
        mine.close()
        theirs.close()


def test_the_probe_chooses_the_shared_path(engine: LlamaEngine) -> None:
    found = engine.scorer().probe()
    assert found.path == "shared"
    assert found.max_difference is not None and found.max_difference < 1e-3


def test_a_path_that_is_wrong_is_not_taken(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """If copies copy nothing, the prefix is not shared, and the reason is given."""
    warned: list[str] = []
    scorer = engine.scorer(warn=warned.append)
    monkeypatch.setattr(Context, "copy", lambda self, source, target: None)
    found = scorer.probe()
    assert found.path == "plain"
    assert "the shared path differs by" in found.reason and "the cached path differs by" in found.reason
    assert scorer.path == "plain" and warned == [f"scoring on the plain path: {found.reason}"]


def test_a_batch_does_not_depend_on_those_before(engine: LlamaEngine) -> None:
    docs = make_docs(engine.loaded.vocabulary)
    scorer = engine.scorer()
    plan = scorer.plan(docs, max_length=MAX_LENGTH, batch_tokens=128)
    assert len(plan.batches) > 4 and plan.prefixes
    once = [scorer.score_batch(plan, at) for at in range(len(plan.batches))]
    assert [scorer.score_batch(plan, at) for at in reversed(range(len(plan.batches)))][::-1] == once
    for at in (0, len(plan.batches) // 2, len(plan.batches) - 1):
        fresh = engine.scorer()
        assert fresh.score_batch(plan, at) == once[at]
        fresh.close()
    scorer.close()


def test_a_batch_over_the_limit_runs_in_halves(engine: LlamaEngine) -> None:
    docs = make_docs(engine.loaded.vocabulary)
    scorer = engine.scorer()
    plan = scorer.plan(docs, max_length=MAX_LENGTH, batch_tokens=512)
    whole = scorer.score_batch(plan, 0)
    scorer.token_limit = 64
    halves = scorer.score_batch(plan, 0)
    for one, two in zip(whole, halves, strict=True):
        assert [a.loglikelihood for a in one] == pytest.approx([b.loglikelihood for b in two], abs=1e-3)
    scorer.close()


def test_more_endings_than_llama_cpp_has_sequences(engine: LlamaEngine, other: Any) -> None:
    docs = [[Request((9, at % 200 + 5), (7, 8)), Request((9, at % 200 + 5), (8, 7))] for at in range(200)]
    found = scores(engine, docs, path="shared", batch_tokens=4096)
    assert largest(docs, found, scores(other, docs)) < 1e-3


def asked_for(vocabulary: int) -> list[Asked]:
    """Contexts with a common beginning, some greedy and some sampled."""
    rng = random.Random(3)
    shots = tuple(rng.randrange(3, vocabulary) for _ in range(60))
    return [
        Asked(
            shots + tuple(rng.randrange(3, vocabulary) for _ in range(rng.randrange(1, 30))),
            max_new_tokens=12,
            stop=("ab",),
            temperature=0.0 if at % 2 else 0.8,
            top_p=0.9,
            seed=at,
        )
        for at in range(20)
    ]


def test_replies_equal_transformers(engine: LlamaEngine, other: Any) -> None:
    asked = asked_for(engine.loaded.vocabulary)
    mine, theirs = engine.generator().generate(asked), other.generator().generate(asked)
    for row in mine, theirs:
        assert all(one.new_tokens for one in row)
    assert [one.token_ids for one in mine] == [one.token_ids for one in theirs]
    assert [(one.text, one.finish_reason) for one in mine] == [(one.text, one.finish_reason) for one in theirs]


def test_a_group_of_replies_does_not_depend_on_those_before(engine: LlamaEngine) -> None:
    asked = asked_for(engine.loaded.vocabulary)
    first = engine.generator()
    first.keep_prefix(asked)
    whole = [*first.generate(asked[:8]), *first.generate(asked[8:16]), *first.generate(asked[16:])]
    fresh = engine.generator()
    fresh.keep_prefix(asked)
    assert fresh.generate(asked[8:16]) == whole[8:16]
    single = engine.generator(path="single")
    assert single.path == "single"
    assert [one.token_ids for one in single.generate(asked)] == [one.token_ids for one in whole]


def test_a_context_without_room_is_cut(engine: LlamaEngine) -> None:
    long = Asked(tuple(3 + at % 200 for at in range(2000)), max_new_tokens=4)
    reply = engine.generator().generate([long])[0]
    assert reply.cut_tokens == 2000 - (engine.max_length - 4)
    with pytest.raises(ModelError, match="at least one token"):
        engine.generator().generate([Asked(())])


def talk(model: Any, prompt: list[int], count: int, sampling: Sampling) -> tuple[list[int], int]:
    """One turn: the answer, and how many tokens were still there. The prompt is a tuple, as jobs give it."""
    reused = model.read(tuple(prompt), count)
    said = [model.next_token(sampling) for _ in range(count)]
    model.finish(keep=True)
    return said, reused


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.9)])
def test_chat_equals_transformers_and_keeps_what_was_read(engine: LlamaEngine, other: Any, sampling: Sampling) -> None:
    mine, theirs = engine.chat_model(), other.chat_model()
    for model in mine, theirs:
        model.seed(5)
    prompt = list(range(10, 60))
    first, reused = talk(mine, prompt, 6, sampling)
    assert reused == 0 and talk(theirs, prompt, 6, sampling)[0] == first
    second = [*prompt, *first, *range(70, 90)]
    state = mine.state()
    again, reused = talk(mine, second, 6, sampling)
    assert reused == len(prompt) + len(first)
    assert talk(theirs, second, 6, sampling)[0] == again
    resumed = engine.chat_model()
    resumed.restore(state)
    assert talk(resumed, second, 6, sampling) == (again, reused)
    shorter = prompt[:20]
    plain = engine.chat_model(keeps_keys=False)
    plain.seed(0)
    resumed.seed(0)
    assert talk(resumed, shorter, 4, Sampling())[0] == talk(plain, shorter, 4, Sampling())[0]
    for model in mine, resumed, plain:
        model.close()


def test_tokens_written_in_the_models_place_are_read_like_its_own(engine: LlamaEngine, other: Any) -> None:
    said = []
    for model in engine.chat_model(), other.chat_model():
        model.read(tuple(range(10, 40)), 12)
        model.write(7)
        model.write(8)
        said.append([model.next_token(Sampling()) for _ in range(6)])
        model.finish(keep=True)
        whole = model.read((*range(10, 40), 7, 8, *said[-1][:3]), 4)
        assert whole >= 30
        assert model.next_token(Sampling()) == said[-1][3]
        model.finish(keep=False)
    assert said[0] == said[1]


def test_thinking_that_used_up_its_tokens_is_ended(engine: LlamaEngine, other: Any) -> None:
    cut = tuple(engine.tokenizer("\n</think>\n\n", add_special_tokens=False)["input_ids"])
    most = len(cut) + 10
    limit = ThinkingLimit(Marks("<think>", "</think>"), True, most, 5, cut)
    asked = [
        replace(one, max_new_tokens=most + 5, stop=(), thinking=limit) for one in asked_for(engine.loaded.vocabulary)
    ]
    mine, theirs = engine.generator().generate(asked), other.generator().generate(asked)
    assert [one.token_ids for one in mine] == [one.token_ids for one in theirs]
    were_cut = [reply for reply in mine if reply.thinking_cut]
    assert were_cut
    for reply in were_cut:
        assert reply.token_ids[10:most] == cut
        assert most < len(reply.token_ids) <= most + 5


def test_a_conversation_outgrows_its_context(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmjobs.engines.llama_cpp.chat_model.ROOM_STEP", 64)
    mine, roomy = engine.chat_model(), engine.chat_model(keeps_keys=False)
    prompt = list(range(10, 60))
    for length in (50, 200, 400):
        prompt = [*prompt, *(3 + at % 200 for at in range(length))]
        assert talk(mine, prompt, 4, Sampling())[0] == talk(roomy, prompt, 4, Sampling())[0]
    mine.close()
    roomy.close()


TEXTS = (
    "",
    "Hello world",
    " A",
    "The  answer\n is: (B) 42, 1999 don't",
    "<s> h\u00e9llo \u4f60\u597d \U0001f642",
    "\n\n",
)


def test_the_tokenizer_equals_the_original(engine: LlamaEngine, other: Any) -> None:
    check_same_tokens("m", TEXTS, engine.tokenizer, other.tokenizer)
    for text in TEXTS:
        ids = engine.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == other.tokenizer(text, add_special_tokens=False)["input_ids"]
        for skip in (True, False):
            assert engine.tokenizer.decode(ids, skip_special_tokens=skip) == other.tokenizer.decode(
                ids, skip_special_tokens=skip
            )
    assert engine.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    assert engine.tokenizer.bos_token_id == other.tokenizer.bos_token_id
    assert engine.tokenizer.eos_token_id == other.tokenizer.eos_token_id
    assert engine.tokenizer.end_tokens == {1}


def test_other_tokens_are_an_error_that_shows_both(engine: LlamaEngine, other: Any) -> None:
    class Shifted:
        def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
            return {"input_ids": [7, *other.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]]}

    with pytest.raises(ModelError, match=r"differ from those of the original tokenizer from position 0 on: \[0.*\[7"):
        check_same_tokens("m", ["abc"], engine.tokenizer, Shifted())


def test_bos_only_where_the_file_adds_it(folder: Path, tmp_path: Path) -> None:
    path = write_llama(folder, tmp_path / "m.gguf", tokenizer__ggml__add_bos_token=False)
    tokenizer = llama.load_tokenizer(spec(path), llama.locate(spec(path)))
    assert tokenizer("a")["input_ids"] == tokenizer("a", add_special_tokens=False)["input_ids"]
    assert tokenizer.bos_token_id is None
    assert tokenizer.special_tokens_map["bos_token"] == "<s>"


def test_the_chat_template_of_the_file(folder: Path, tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    path = write_llama(folder, tmp_path / "m.gguf", tokenizer__chat_template=template)
    tokenizer = llama.load_tokenizer(spec(path), llama.locate(spec(path)))
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text == "<s>user: Hi\n"
    assert tokenizer(text, add_special_tokens=False)["input_ids"][0] == 0


def test_what_is_recorded(engine: LlamaEngine) -> None:
    found = engine.description
    assert (found.engine, found.architecture, found.device) == ("llama.cpp", "llama", "cpu")
    assert (found.dtype, found.quantization) == ("float32", "none")
    assert found.parameters == 107584 and found.context_length == 1024
    effective = dict(engine.effective)
    assert effective.pop("kernels") in ("fast", "plain")
    assert effective == {
        "engine": "llama.cpp",
        "device": "cpu",
        "dtype": "float32",
        "quantization": "none",
        "threads": 1,
        "gpu_layers": 0,
        "kv_cache": "f32",
    }
    assert engine.mapped_weight_bytes == found.weight_bytes


def test_quantized_files_differ_more_and_more(tmp_path: Path) -> None:
    """The binding's own quantizer, on rows that the K formats fill; what is recorded is what the tensors say."""
    folder = make_llama(tmp_path / "wide", hidden=256, layers=2, spread=0.06)
    whole = write_llama(folder, tmp_path / "wide-F32.gguf")
    docs = make_docs(250)
    exact = open_model(spec(whole), threads=1)
    expected = scores(exact, docs)
    exact.close()
    errors: list[float] = []
    for kind in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"):
        # the name lies about what is inside
        loaded = open_model(spec(quantize(whole, tmp_path / f"wide-F32-{len(errors)}.gguf", kind)), threads=1)
        assert kind.split("_M")[0] in loaded.description.quantization
        assert loaded.scorer().probe().path == "shared"
        found = scores(loaded, docs)
        errors.append(
            float(
                np.mean(
                    [
                        abs(a.loglikelihood - b.loglikelihood)
                        for at in found
                        for a, b in zip(found[at], expected[at], strict=True)
                    ]
                )
            )
        )
        loaded.close()
    assert errors == sorted(errors) and errors[0] > 0 and errors[-1] > 10 * errors[0]


def test_keys_and_values_in_16_bits_are_near(gguf: Path, engine: LlamaEngine) -> None:
    docs = make_docs(engine.loaded.vocabulary)
    short = open_model(spec(gguf, kv_cache="f16"), threads=1)
    difference = largest(docs, scores(short, docs), scores(engine, docs))
    short.close()
    assert 0 < difference < 0.05


def test_speed_is_measured(engine: LlamaEngine) -> None:
    found = engine.measure_speed([16, 4096], rows=2, new_tokens=4)
    assert found[0].prefill_tokens_per_s and found[0].decode_tokens_per_s and found[0].ttft_s
    assert "reads 1024 tokens" in str(found[1].reason)


def test_errors_of_loading_are_one_line(folder: Path, tmp_path: Path) -> None:
    for name, metadata, told in (
        ("unknown", {"general__architecture": "strange", "strange__context_length": 512}, "strange"),
        ("pre", {"tokenizer__ggml__pre": "newer"}, "unknown pre-tokenizer type: 'newer'; a newer"),
        ("missing", {"llama__block_count": 3}, "llama.cpp cannot load missing.gguf"),
    ):
        path = write_llama(folder, tmp_path / f"{name}.gguf", **metadata)
        with pytest.raises(ModelError, match=told) as caught:
            open_model(spec(path))
        assert str(caught.value).startswith("m: ") and "\n" not in str(caught.value)
    path = write_llama(folder, tmp_path / "cut.gguf")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ModelError, match="truncated"):
        open_model(spec(path))


def test_a_gpu_that_is_not_there(gguf: Path) -> None:
    if "cuda" in llama.devices() or "mps" in llama.devices():
        pytest.skip("this build of llama.cpp has a GPU")
    with pytest.raises(ModelError, match="finds no GPU; install a build"):
        open_model(spec(gguf, device="auto", gpu_layers=4))


def test_a_file_is_not_quantized_again(gguf: Path) -> None:
    with pytest.raises(ModelError, match="a GGUF file cannot be quantized again"):
        open_model(spec(gguf).model_copy(update={"quantization": "8bit"}))


def test_the_binding_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from llmjobs.engines.llama_cpp.library import library

    library.cache_clear()
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    try:
        with pytest.raises(MissingPackageError, match=r"llama-cpp-python package; run pip install 'llmjobs\[gguf\]'"):
            library()
    finally:
        monkeypatch.undo()
        library.cache_clear()
        library()
