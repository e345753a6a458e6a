"""One row of generation: what is asked, what was generated, when it ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llmjobs.scoring.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Asked:
    """A context of token ids and how to continue it; every row of a batch keeps its own settings.

    ``temperature`` 0 is greedy; ``top_p`` and ``seed`` are used above 0 only.
    """

    context: Sequence[int]
    max_new_tokens: int = 256
    stop: Sequence[str] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """What one row gave.

    ``text`` ends before the stop string; ``token_ids`` are all that were generated, an end token included.
    ``finish_reason``: ``eos``, ``stop`` (a stop string), ``length``, or ``error`` with a line in ``error``.
    ``cut_tokens``: how many tokens of the context's beginning the model could not be given.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: str
    prompt_tokens: int
    new_tokens: int
    cut_tokens: int = 0
    error: str | None = None


class Row:
    """A context on its way to a :class:`Generation`; it draws from its own random generator."""

    def __init__(self, asked: Asked, max_length: int) -> None:
        self.max_new_tokens = max(1, asked.max_new_tokens)
        room = max(1, max_length - self.max_new_tokens)
        self.context = tuple(asked.context)[-room:]
        self.cut_tokens = len(asked.context) - len(self.context)
        self.sampling = Sampling(asked.temperature, asked.top_p)
        self.stop = tuple(one for one in asked.stop if one)
        self.seed = asked.seed
        self.tail = 4 + 4 * max(map(len, self.stop), default=0)
        self.restart()

    @property
    def length(self) -> int:
        """Tokens that the model reads at most: the context, and every new token but the last."""
        return len(self.context) + self.max_new_tokens - 1

    def restart(self) -> None:
        """Forget what was generated."""
        self.generator = torch.Generator().manual_seed(self.seed)
        self.token_ids: list[int] = []
        self.finish_reason = ""
        self.error: str | None = None

    def append(self, token: int, tokenizer: Any, end_tokens: frozenset[int]) -> None:
        """Add a token and see whether the row is finished."""
        self.token_ids.append(token)
        if token in end_tokens:
            self.finish_reason = "eos"
        elif self.stop and self._stops(tokenizer):
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.max_new_tokens:
            self.finish_reason = "length"

    def fail(self, reason: str) -> None:
        """End the row without a usable answer."""
        self.finish_reason, self.error = "error", reason

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
            cut_tokens=self.cut_tokens,
            error=self.error,
        )
