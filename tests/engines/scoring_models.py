"""Small random models, the same each time, and the scores of a plain forward."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from llmjobs.benchmarks.scoring_requests import Request, Score
from llmjobs.engines.batches import UnitPlan
from llmjobs.engines.transformers.score import Scorer

VOCABULARY = 211


def llama_config(layers: int = 2) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip


def random_model(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Return a model with seeded weights, large enough that its answers are not all alike.

    Soft caps need eager attention: sdpa left them out in silence in transformers 5.17.
    """
    torch.manual_seed(0)
    config.initializer_range = 0.08
    how = {"attn_implementation": "eager"} if getattr(config, "attn_logit_softcapping", None) else {}
    return AutoModelForCausalLM.from_config(config, dtype=dtype, **how).eval()


def score_unit(scorer: Scorer, plan: UnitPlan) -> dict[int, list[Score]]:
    """Score every batch; a doc's scores by its index."""
    found: dict[int, list[Score]] = {}
    for at, batch in enumerate(plan.batches):
        found.update(zip(batch.docs, scorer.score_batch(plan, at), strict=True))
    return found


def plain_score(model: Any, request: Request, max_length: int = 512) -> Score:
    """Score one request with an unbatched forward over the whole concatenation."""
    tokens = (request.context + request.continuation)[-(max_length + 1) :]
    with torch.no_grad():
        logprobs = model(torch.tensor([tokens[:-1]]), use_cache=False).logits[0].float().log_softmax(-1)
    rows = logprobs[-len(request.continuation) :]
    targets = torch.tensor(request.continuation)
    total = rows.gather(-1, targets[:, None]).sum().item()
    return Score(total, bool((rows.argmax(-1) == targets).all()))


def assert_same_answers(
    found: dict[int, list[Score]], expected: Sequence[Sequence[Score]], tolerance: float = 1e-3
) -> None:
    """Log-likelihoods within ``tolerance``, the same greedy flags, the same best option."""
    assert sorted(found) == list(range(len(expected)))
    for doc, wanted in enumerate(expected):
        got = found[doc]
        assert [one.is_greedy for one in got] == [one.is_greedy for one in wanted]
        assert [one.loglikelihood for one in got] == pytest.approx([one.loglikelihood for one in wanted], abs=tolerance)
        best = [max(range(len(some)), key=lambda at, some=some: some[at].loglikelihood) for some in (got, wanted)]
        assert best[0] == best[1]
