import pytest
import torch
from torch import Tensor

from llmjobs.engines.transformers import packed_attention
from llmjobs.engines.transformers.packed_attention import Call, attend


def reference(call: Call, query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1).double(), value.repeat_interleave(groups, 1).double()
    scores = query.double() @ key.transpose(-1, -2) * call.scale
    if call.softcap:
        scores = call.softcap * torch.tanh(scores / call.softcap)
    scores = scores.masked_fill(~seen, -torch.inf)
    return scores.softmax(-1).nan_to_num() @ value, scores.logsumexp(-1)


def states(batch: int, heads: int, kept: int, queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = ((heads, queries), (kept, keys), (kept, keys))
    query, key, value = (torch.randn(batch, length, some, 16).transpose(1, 2) for some, length in shapes)
    return query, key, value


@pytest.mark.parametrize("call", [Call(0.25), Call(0.25, softcap=2.0), Call(0.25, window=5), Call(0.25, 5, 2.0)])
@pytest.mark.parametrize(("batch", "heads", "kept"), [(1, 4, 4), (1, 4, 2), (3, 4, 2), (2, 4, 1)])
def test_causal(call: Call, batch: int, heads: int, kept: int) -> None:
    given = states(batch, heads, kept, 9, 9)
    behind = torch.arange(9)[:, None] - torch.arange(9)
    seen = (behind >= 0) & (behind < (call.window or 99))
    for found, wanted in zip(attend(call, *given, causal=True), reference(call, *given, seen), strict=True):
        torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("call", [Call(0.25), Call(0.25, softcap=2.0), Call(0.25, window=5), Call(0.25, 5, 2.0)])
@pytest.mark.parametrize(("heads", "kept"), [(4, 4), (4, 2)])
def test_cross(call: Call, heads: int, kept: int) -> None:
    given = states(1, heads, kept, 7, 12)
    distance = torch.arange(13, 20)
    behind = distance[:, None] - torch.arange(12)
    seen = behind < (call.window or 99)
    assert call.window is None or not seen[-1].any()
    for found, wanted in zip(attend(call, *given, distance=distance), reference(call, *given, seen), strict=True):
        torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)


def test_scores_are_computed_in_pieces_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    given = states(1, 4, 2, 9, 9)
    whole = attend(Call(0.25, softcap=2.0), *given, causal=True)
    monkeypatch.setattr(packed_attention, "MAX_SCORES", 4 * 9 * 2)
    for found, wanted in zip(attend(Call(0.25, softcap=2.0), *given, causal=True), whole, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(("heads", "kept"), [(4, 4), (4, 2)])
def test_half_precision_products_equal_flash_attention(heads: int, kept: int) -> None:
    given = tuple(one.bfloat16() for one in states(1, heads, kept, 7, 80))
    found, lse = attend(Call(0.25), *given)
    wanted, wanted_lse = reference(Call(0.25), *given, torch.ones(7, 80, dtype=torch.bool))
    torch.testing.assert_close(found.double(), wanted, atol=0.02, rtol=0.02)
    torch.testing.assert_close(lse.double(), wanted_lse, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(("batch", "heads", "kept"), [(1, 4, 2), (2, 4, 4)])
def test_half_precision_products_equal_causal_flash_attention(batch: int, heads: int, kept: int) -> None:
    given = tuple(one.bfloat16() for one in states(batch, heads, kept, 330, 330))
    found, lse = attend(Call(0.25), *given, causal=True)
    wanted, wanted_lse = reference(Call(0.25), *given, torch.ones(330, 330, dtype=torch.bool).tril())
    torch.testing.assert_close(found.double(), wanted, atol=0.02, rtol=0.02)
    torch.testing.assert_close(lse.double(), wanted_lse, atol=0.02, rtol=0.02)
