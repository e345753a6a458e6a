"""Choosing the next token, each row by its own seed: the batch around a row does not change its draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """``temperature`` 0 is greedy; ``top_p`` keeps the smallest set of tokens with that much probability."""

    temperature: float = 0.0
    top_p: float = 1.0


def next_tokens(logits: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> list[int]:
    """Choose a token for each row of ``logits`` [rows, vocabulary]; one uniform number a row and token."""
    if sampling.temperature <= 0:
        greedy: list[int] = logits.argmax(-1).tolist()
        return greedy
    chances = torch.softmax(logits.double().cpu() / sampling.temperature, -1)
    ordered, tokens = chances.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    ordered = ordered.masked_fill(before >= sampling.top_p, 0.0)
    ordered[:, 0] = ordered[:, 0].clamp_min(torch.finfo(torch.float64).tiny)
    reached = ordered.cumsum(-1)
    draws = torch.stack([torch.rand((), generator=one, dtype=torch.float64) for one in generators])
    picked = torch.searchsorted(reached, (draws * reached[:, -1])[:, None], right=True)
    chosen: list[int] = tokens.gather(-1, picked.clamp_max(tokens.shape[-1] - 1))[:, 0].tolist()
    return chosen
