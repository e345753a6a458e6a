from typing import Any

import pytest
import torch
from scoring_models import VOCABULARY, llama_config, random_model

from llmjobs.benchmarks.scoring_requests import Request, Score
from llmjobs.engines.batches import UnitPlan
from llmjobs.engines.transformers import packed_attention, score
from llmjobs.engines.transformers.fast_path_trials import made_up_docs, probe_paths
from llmjobs.engines.transformers.score import Scorer


def test_a_right_model_takes_the_shared_path_in_silence(llama: Any) -> None:
    said: list[str] = []
    found = Scorer(llama, warn=said.append).probe()
    assert (found.path, said) == ("shared", [])
    assert found.max_difference is not None
    assert found.max_difference < 1e-4


def test_a_mismatch_means_the_next_path_aloud(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_attention, "_merge_cross", lambda *args: None)
    said: list[str] = []
    scorer = Scorer(llama, warn=said.append)
    found = scorer.probe()
    assert (found.path, scorer.path) == ("cached", "cached")
    assert said == [f"scoring on the cached path: {found.reason}"]
    assert "the shared path differs by" in found.reason
    assert found.reason.endswith("rounding allows 0.001; equal to a plain forward within 0.001")


@pytest.mark.parametrize(("dtype", "path"), [(torch.bfloat16, "shared"), (torch.float32, "plain")], ids=str)
def test_unlikely_tokens_round_more_in_sixteen_bits(dtype: torch.dtype, path: str) -> None:
    scores = {"plain": [Score(-0.7, True), Score(-18.0, False)], "other": [Score(-0.7, True), Score(-18.3, False)]}
    found = probe_paths(
        random_model(llama_config(), dtype),
        {"shared": None, "cached": None},
        lambda which, plan: scores.get(which, scores["other"]),
        [[Request((1, 2), (3,)), Request((1, 2), (4,))]],
    )
    assert (found.path, found.max_difference) == (path, pytest.approx(0.3))


def test_a_likely_token_that_is_far_off_is_no_rounding() -> None:
    scores = {"plain": [Score(-0.7, True), Score(-18.0, False)], "other": [Score(-1.0, True), Score(-18.0, False)]}
    found = probe_paths(
        random_model(llama_config(), torch.bfloat16),
        {"shared": None, "cached": "not here"},
        lambda which, plan: scores.get(which, scores["other"]),
        [[Request((1, 2), (3,)), Request((1, 2), (4,))]],
    )
    assert (found.path, found.reason) == ("plain", "the shared path differs by 0.3, rounding allows 0.25; not here")


def test_where_nothing_fits_the_plain_path_is_left(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score.SharedPath, "refuses", lambda self, model: "not this one")
    monkeypatch.setattr(score.CachedPath, "refuses", lambda self, model: "nor this")
    said: list[str] = []
    found = Scorer(llama, warn=said.append).probe()
    assert (found.path, found.max_difference) == ("plain", None)
    assert said == ["scoring on the plain path: not this one; nor this"]


def test_an_error_of_the_shared_path_means_the_next_path(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_attention, "_causal_parts", lambda *args: 1 / 0)
    found = Scorer(llama, warn=lambda line: None).probe()
    assert found.path == "cached"
    assert found.reason.startswith("the shared path failed: division by zero; equal")


def test_docs_of_the_unit_can_be_the_probe(llama: Any) -> None:
    found = Scorer(llama).probe(made_up_docs(VOCABULARY, 512)[:2])
    assert found.to_builtin()["path"] == "shared"


def test_positions_that_change_with_the_length_share_up_to_the_original_length() -> None:
    config = llama_config()
    config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = random_model(config)
    said: list[str] = []
    scorer = Scorer(model, warn=said.append)
    assert (scorer.probe().path, said) == ("shared", [])

    def unit(longest: int) -> UnitPlan:
        context = tuple(n % VOCABULARY for n in range(longest))
        docs = [[Request(context[:at], (1,)), Request(context[:at], (2,))] for at in (longest - 9, longest)]
        return scorer.plan(docs, max_length=1024, batch_tokens=2048)

    assert (scorer.path_of(unit(512)), said) == ("shared", [])
    beyond = unit(513)
    assert scorer.path_of(beyond) == "plain"
    assert said == ["inputs of up to 513 tokens: positions change beyond 512, so nothing is shared"]
    with torch.no_grad():
        alone = model(torch.tensor([[n % VOCABULARY for n in range(513)]])).logits[0, -1].log_softmax(-1)
    (found,) = [scores for at, batch in enumerate(beyond.batches) for scores in scorer.score_batch(beyond, at)][:1]
    assert [score.loglikelihood for score in found] == pytest.approx(alone[1:3].tolist(), abs=1e-4)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_lengths_beyond_the_original_do_not_change_each_other(kind: str) -> None:
    config = llama_config()
    rope: dict[str, Any] = {"rope_type": kind, "factor": 4.0, "rope_theta": 10000.0}
    if kind == "longrope":
        rope |= {"original_max_position_embeddings": 64, "short_factor": [1.0] * 8, "long_factor": [1.0, 2.0] * 4}
    else:
        config.max_position_embeddings = 64
    config.rope_parameters = rope
    model = random_model(config)
    contexts = [tuple((7 * n + size) % VOCABULARY for n in range(size)) for size in (30, 90, 50, 120)]
    docs = [[Request(context, (1,)), Request(context, (2, 3))] for context in contexts]
    scorer = Scorer(model, warn=lambda line: None)
    scorer.probe()
    plan = scorer.plan(docs, max_length=512, batch_tokens=2048)
    together = {}
    for at, batch in enumerate(plan.batches):
        together.update(zip(batch.docs, scorer.score_batch(plan, at), strict=True))
    for doc, requests in enumerate(docs):
        for request, found in zip(requests, together[doc], strict=True):
            fresh = random_model(config)
            tokens = (*request.context, *request.continuation)
            with torch.no_grad():
                logprobs = fresh(torch.tensor([tokens[:-1]]), use_cache=False).logits[0].log_softmax(-1)
            rows = logprobs[-len(request.continuation) :]
            alone = rows.gather(-1, torch.tensor(request.continuation)[:, None]).sum().item()
            assert found.loglikelihood == pytest.approx(alone, abs=1e-4)


def test_unknown_kinds_of_layers_are_refused(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama.config, "layer_types", ["full_attention", "linear_attention"], raising=False)
    found = Scorer(llama, warn=lambda line: None).probe()
    assert (found.path, found.reason.split(";")[0]) == ("plain", "layers of kind linear_attention")


@pytest.mark.parametrize(
    ("whole_numbers", "itself", "path"),
    [(True, 0.2, "shared"), (True, 0.1, "plain"), (True, 9.0, "shared"), (False, 0.2, "plain")],
)
def test_a_quantized_model_may_differ_as_it_does_from_itself(whole_numbers: bool, itself: float, path: str) -> None:
    model = random_model(llama_config(), torch.bfloat16)
    if whole_numbers:
        model.int8 = torch.nn.Parameter(torch.zeros(1, dtype=torch.int8), requires_grad=False)
    sizes: list[int] = []

    def score_by(which: str, plan: UnitPlan) -> list[Score]:
        sizes.append(plan.batch_tokens)
        off = 0.3 if which == "shared" else itself if len(sizes) > 2 else 0.0
        return [Score(-0.7 - off, True) for batch in plan.batches for _ in batch.options]

    docs = [[Request((1, 2, at), (3,)), Request((1, 2, at), (4, 5))] for at in range(9)]
    found = probe_paths(model, {"shared": None, "cached": "not here"}, score_by, docs)
    assert found.path == path
    assert (len(sizes), len(set(sizes))) == ((3, 2) if whole_numbers else (2, 1))
    assert ("differs from itself by" in found.reason) == (path == "shared")


def test_a_path_that_is_wrong_is_refused_however_noisy_the_model() -> None:
    model = random_model(llama_config(), torch.bfloat16)
    model.int8 = torch.nn.Parameter(torch.zeros(1, dtype=torch.int8), requires_grad=False)
    calls: list[str] = []

    def score_by(which: str, plan: UnitPlan) -> list[Score]:
        calls.append(which)
        off = 1.1 if which == "shared" else 5.0 if calls.count("plain") > 1 else 0.0
        return [Score(-0.7 - off, True) for batch in plan.batches for _ in batch.options]

    found = probe_paths(model, {"shared": None, "cached": "not here"}, score_by, [[Request((1, 2), (3,))]])
    assert found.path == "plain"
    assert "the shared path differs by 1.1, rounding allows 1;" in found.reason


def test_values_that_are_not_numbers_leave_the_plain_path_and_a_record_that_can_be_written(llama: Any) -> None:
    model = random_model(llama_config())
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = torch.nan
    found = Scorer(model, warn=lambda line: None).probe()
    assert (found.path, found.max_difference) == ("plain", None)
    assert "not numbers" in found.reason


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_models_share_too(bits: int, dtype: torch.dtype) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    model = quantized(bits, dtype)
    found = Scorer(model).probe()
    assert found.path == "shared", found


def quantized(bits: int, dtype: torch.dtype) -> Any:
    """Replace the linear layers of a model in ``dtype`` by bitsandbytes' own, as the loader does."""
    import bitsandbytes

    model = random_model(llama_config(layers=12), dtype)
    for module in list(model.model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear):
                if bits == 4:
                    new = bitsandbytes.nn.Linear4bit(
                        child.in_features, child.out_features, bias=False, compute_dtype=dtype
                    )
                    new.weight = bitsandbytes.nn.Params4bit(child.weight.data, requires_grad=False, quant_type="nf4")
                else:
                    new = bitsandbytes.nn.Linear8bitLt(
                        child.in_features, child.out_features, bias=False, has_fp16_weights=False
                    )
                    new.weight = bitsandbytes.nn.Int8Params(child.weight.data, requires_grad=False)
                setattr(module, name, new.to("cpu"))
    return model
