"""Choose the next token, with separate settings and random numbers for each row, on every engine that gives logits."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmjobs.engines.protocol import Sampling


def next_tokens(logits: Tensor, how: Sequence[Sampling], generators: Sequence[torch.Generator]) -> list[int]:
    """Choose a token for each row of ``logits`` [rows, vocabulary].

    A sampled row takes one uniform number per token from its own generator, so other rows do not affect it.
    """
    chosen: list[int] = logits.argmax(-1).tolist()
    drawn = [at for at, one in enumerate(how) if one.temperature > 0]
    if drawn:
        sampled = _draw(logits[drawn], [how[at] for at in drawn], [generators[at] for at in drawn])
        for at, token in zip(drawn, sampled, strict=True):
            chosen[at] = token
    return chosen


def _draw(logits: Tensor, how: Sequence[Sampling], generators: Sequence[torch.Generator]) -> list[int]:
    temperatures = torch.tensor([one.temperature for one in how], dtype=torch.float64)[:, None]
    top_p = torch.tensor([one.top_p for one in how], dtype=torch.float64)[:, None]
    chances = torch.softmax(logits.double().cpu() / temperatures, -1)
    ordered, tokens = chances.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    ordered = ordered.masked_fill(before >= top_p, 0.0)
    ordered[:, 0] = ordered[:, 0].clamp_min(torch.finfo(torch.float64).tiny)
    reached = ordered.cumsum(-1)
    draws = torch.stack([torch.rand((), generator=one, dtype=torch.float64) for one in generators])
    picked = torch.searchsorted(reached, (draws * reached[:, -1])[:, None], right=True)
    chosen: list[int] = tokens.gather(-1, picked.clamp_max(tokens.shape[-1] - 1))[:, 0].tolist()
    return chosen
