"""The GPU's way of packing the same attention, with its kernel spelled out for the CPU."""

from typing import Any

import pytest
import torch
from scoring_families import family_config
from scoring_models import VOCABULARY, assert_same_answers, plain_score, random_model, score_unit
from torch import Tensor

from llmjobs.engines.batches import plan_unit
from llmjobs.engines.transformers import packed_attention
from llmjobs.engines.transformers.fast_path_trials import made_up_docs
from llmjobs.engines.transformers.packed_attention import (
    Call,
    Causal,
    Cross,
    Layout,
    Ranges,
    attend,
    varlen_attention,
    varlen_layout,
)
from llmjobs.engines.transformers.score import Scorer


def spelled_out(
    query: Tensor, key: Tensor, value: Tensor, ranges: Ranges, scale: float, causal: bool, window: int | None
) -> tuple[Tensor, Tensor]:
    """One call of ``attend`` for each pair of ranges."""
    out, lse = torch.empty_like(query), torch.empty(query.shape[1], query.shape[0])
    queries, keys = (list(zip(some, some[1:], strict=False)) for some in offsets(ranges))
    assert max(last - first for first, last in queries) == ranges.max_queries
    assert max(last - first for first, last in keys) == ranges.max_keys
    for (first, last), (key_first, key_last) in zip(queries, keys, strict=True):
        parts = (query[first:last], key[key_first:key_last], value[key_first:key_last])
        found = attend(Call(scale, window), *(part.transpose(0, 1)[None] for part in parts), causal=causal)
        out[first:last], lse[:, first:last] = found[0][0].transpose(0, 1), found[1][0]
    return out, lse


def offsets(ranges: Ranges) -> tuple[list[int], list[int]]:
    return ranges.query_offsets.tolist(), ranges.key_offsets.tolist()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "gpt-oss", "mistral-window"])
@pytest.mark.parametrize("batch_tokens", [40, 300])
def test_scores_equal_a_plain_forward(monkeypatch: pytest.MonkeyPatch, name: str, batch_tokens: int) -> None:
    calls = []

    def call(*args: Any) -> Any:
        calls.append(args)
        return varlen_attention(*args, kernel=spelled_out)

    monkeypatch.setattr(packed_attention, "varlen_fits", lambda query, value: True)
    monkeypatch.setattr(packed_attention, "varlen_attention", call)
    model = random_model(family_config(name))
    docs = made_up_docs(VOCABULARY, 512)
    found = score_unit(Scorer(model), plan_unit(docs, max_length=512, batch_tokens=batch_tokens))
    monkeypatch.undo()
    assert calls
    assert_same_answers(found, [[plain_score(model, one) for one in doc] for doc in docs], tolerance=1e-4)


def test_levels_join_parts_that_do_not_overlap() -> None:
    cross = (
        Cross(0, 20, 0, 50, 0, prefix=0), Cross(4, 10, 0, 4, 50), Cross(6, 10, 4, 6, 54), Cross(13, 20, 10, 13, 50),
    )  # fmt: skip
    layout = Layout(tuple(range(20)), tuple(range(20)), (Causal(0, 5, 4),), cross)
    found = varlen_layout(layout, "cpu")
    assert offsets(found.own) == ([0, 5, 10, 15, 20], [0, 5, 10, 15, 20])
    assert [level.prefix for level in found.levels] == [0, -1, -1]
    assert found.levels[0].key_rows is None
    assert found.levels[1].query_rows.tolist() == [*range(4, 10), *range(13, 20)]
    assert offsets(found.levels[1].ranges) == ([0, 6, 13], [0, 4, 7])
    assert (found.levels[1].ranges.max_queries, found.levels[1].ranges.max_keys) == (7, 4)
    assert found.levels[2].query_rows.tolist() == [*range(6, 10)]


@pytest.mark.cuda
def test_the_real_kernel_equals_the_spelled_out_one() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    torch.manual_seed(0)
    query, key, value = (torch.randn(20, heads, 64, device="cuda", dtype=torch.bfloat16) for heads in (8, 2, 2))
    cross = (Cross(4, 10, 0, 4, 50), Cross(13, 20, 10, 13, 50))
    found = varlen_layout(Layout(tuple(range(20)), tuple(range(20)), (Causal(0, 5, 4),), cross), "cuda")
    level = found.levels[0]
    cases: tuple[tuple[tuple[Tensor, Tensor, Tensor], Ranges, bool, int | None], ...] = (
        ((query, key, value), found.own, True, None),
        ((query, key, value), found.own, True, 3),
        ((query[level.query_rows], key[level.key_rows], value[level.key_rows]), level.ranges, False, None),
    )
    for states, ranges, causal, window in cases:
        out, lse = packed_attention.flash_varlen(*states, ranges, 0.125, causal, window)
        wanted, wanted_lse = spelled_out(*(one.float().cpu() for one in states), ranges, 0.125, causal, window)
        torch.testing.assert_close(out.float().cpu(), wanted, atol=0.02, rtol=0.02)
        torch.testing.assert_close(lse.float().cpu(), wanted_lse, atol=0.02, rtol=0.02)
