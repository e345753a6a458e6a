"""Prefill and decode steps on transformers' own caches, with a prefix that all rows share."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmjobs.scoring.forward import Model
from llmjobs.scoring.requests import common_length

MIN_SHARED_TOKENS = 32


class Prefix:
    """Tokens that every row begins with and the cache that they leave, computed once and copied a batch."""

    def __init__(self, model: Model, contexts: Sequence[Sequence[int]]) -> None:
        self.length = shared_length(model, contexts)
        self.tokens = list(contexts[0][: self.length]) if self.length else []
        self.cache: Any = None
        if self.length:
            tokens = torch.tensor([self.tokens], device=model.device)
            _, self.cache = step(model, tokens, torch.ones_like(tokens), None)

    def begins(self, contexts: Sequence[Sequence[int]]) -> bool:
        """Say whether all of these begin with the prefix and go on after it."""
        return all(len(one) > self.length and list(one[: self.length]) == self.tokens for one in contexts)

    def expand(self, rows: int) -> Any:
        """Return a cache for ``rows`` rows, or None where nothing is shared."""
        if self.cache is None:
            return None
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(rows)
        return cache


def shared_length(model: Model, contexts: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens to share; every row keeps one of its own.

    Padding then stands between the prefix and a row's own tokens, which sliding windows would count: models
    that have windows share nothing, nor do models without a key-value cache.
    """
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ()
    windowed = getattr(config, "sliding_window", None) or "sliding_attention" in kinds
    if len(contexts) < 2 or windowed or "past_key_values" not in inspect.signature(model.forward).parameters:
        return 0
    length = min(len(one) - 1 for one in contexts)
    for context in contexts[1:]:
        length = min(length, common_length(contexts[0], context))
    return length if length >= MIN_SHARED_TOKENS else 0


def pad_left(contexts: Sequence[Sequence[int]], first: int, device: Any) -> tuple[Tensor, Tensor]:
    """Return tokens from position ``first`` on [rows, longest] and the mask [rows, first + longest]."""
    width = max(map(len, contexts)) - first
    tokens = torch.zeros(len(contexts), width, dtype=torch.long)
    mask = torch.ones(len(contexts), first + width, dtype=torch.long)
    for at, context in enumerate(contexts):
        own = torch.tensor(context[first:], dtype=torch.long)
        tokens[at, width - len(own) :] = own
        mask[at, first : first + width - len(own)] = 0
    return tokens.to(device), mask.to(device)


def step(model: Model, tokens: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """Run ``tokens`` [rows, new] after ``cache``; return the last logits [rows, vocabulary] and the cache.

    ``mask`` [rows, cached + new] is 0 on padding; positions count what it leaves.
    """
    accepted = inspect.signature(model.forward).parameters
    positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -tokens.shape[1] :]
    optional = {"position_ids": positions, "logits_to_keep": 1}
    name = "cache_params" if "cache_params" in accepted else "past_key_values"
    given = {key: value for key, value in optional.items() if key in accepted} | {name: cache}
    with torch.inference_mode():
        output = model(input_ids=tokens, attention_mask=mask, use_cache=True, **given)
    return output.logits[:, -1], getattr(output, name)


def keep_rows(cache: Any, rows: Tensor) -> None:
    """Drop the other rows from a cache, of whichever kind."""
    select = getattr(cache, "batch_select_indices", None) or cache.reorder_cache
    select(rows)
