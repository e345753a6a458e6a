"""One row of generation: its context, what was generated, when it ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Generation:
    """What one row gave.

    ``text`` ends before the stop string; ``token_ids`` are all that were generated, an end token included.
    ``finish_reason``: ``eos``, ``stop`` (a stop string) or ``length``.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: str
    prompt_tokens: int
    new_tokens: int


class Row:
    """A context on its way to a :class:`Generation`; draws come from a generator of its own."""

    def __init__(self, context: Sequence[int], stop: Sequence[str], seed: int) -> None:
        self.context = tuple(context)
        self.stop = tuple(one for one in stop if one)
        self.seed = seed
        self.tail = 4 + 4 * max(map(len, self.stop), default=0)
        self.restart()

    def restart(self) -> None:
        """Forget what was generated."""
        self.generator = torch.Generator().manual_seed(self.seed)
        self.token_ids: list[int] = []
        self.finish_reason = ""

    def append(self, token: int, tokenizer: Any, end_tokens: frozenset[int], last: bool) -> None:
        """Add a token and see whether the row is finished."""
        self.token_ids.append(token)
        if token in end_tokens:
            self.finish_reason = "eos"
        elif self.stop and self._stops(tokenizer):
            self.finish_reason = "stop"
        elif last:
            self.finish_reason = "length"

    def _stops(self, tokenizer: Any) -> bool:
        """Look in the last 4 n + 4 tokens, which hold a stop string of n characters (4 n bytes) whole."""
        tail = tokenizer.decode(self.token_ids[-self.tail :], skip_special_tokens=True)
        return any(one in tail for one in self.stop)

    def generation(self, tokenizer: Any) -> Generation:
        """Decode, and cut at the first stop string."""
        ids = self.token_ids[:-1] if self.finish_reason == "eos" else self.token_ids
        text = tokenizer.decode(ids, skip_special_tokens=True)
        ends = [text.find(one) for one in self.stop if one in text]
        return Generation(
            token_ids=tuple(self.token_ids),
            text=text[: min(ends, default=len(text))],
            finish_reason=self.finish_reason,
            prompt_tokens=len(self.context),
            new_tokens=len(self.token_ids),
        )
