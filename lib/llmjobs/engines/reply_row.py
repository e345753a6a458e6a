"""What engines share when they generate: how the next token is chosen, and what ends the reply of a row.

A reply ends at an end token, a stop string, or the maximum number of new tokens; thinking has a separate limit. Each
row of a batch has separate settings and random numbers.
"""

from typing import Any

import torch

from llmjobs.engines.protocol import Asked, Generation, Sampling
from llmjobs.stop_strings import before_stop, stop_place, tail_tokens
from llmjobs.thinking import ThinkingCount


class Row:
    """A context that is becoming a :class:`Generation`; it has its own random generator."""

    def __init__(self, asked: Asked, max_length: int) -> None:
        self.max_new_tokens = max(1, asked.max_new_tokens)
        room = max(1, max_length - self.max_new_tokens)
        self.context = tuple(asked.context)[-room:]
        self.cut_tokens = len(asked.context) - len(self.context)
        self.sampling = Sampling(asked.temperature, asked.top_p)
        self.stop = tuple(one for one in asked.stop if one)
        self.seed = asked.seed
        self.thinking_limit = asked.thinking
        self.tail = tail_tokens(self.stop)
        self.restart()

    @property
    def length(self) -> int:
        """Maximum number of tokens that the model reads: the context, and every new token but the last."""
        return len(self.context) + self.max_new_tokens - 1

    def restart(self) -> None:
        """Discard what was generated."""
        self.generator = torch.Generator().manual_seed(self.seed)
        self.token_ids: list[int] = []
        self.finish_reason = ""
        self.error: str | None = None
        self.thinking: ThinkingCount | None = None

    def append(self, chosen: int, tokenizer: Any, end_tokens: frozenset[int]) -> None:
        """Add the chosen token, or one that ends the thinking, and check whether the row is finished."""
        written = None
        if self.thinking_limit:
            self.thinking = self.thinking or ThinkingCount(self.thinking_limit, tokenizer.decode)
            written = self.thinking.written()
            self.thinking.add(chosen if written is None else written)
        self.token_ids.append(chosen if written is None else written)
        if written is None and chosen in end_tokens:
            self.finish_reason = "eos"
        elif self.stop and stop_place(self._tail_text(tokenizer), self.stop) is not None:
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.max_new_tokens or (self.thinking and self.thinking.is_full):
            self.finish_reason = "length"

    def fail(self, reason: str) -> None:
        """End the row without a usable answer."""
        self.finish_reason, self.error = "error", reason

    def _tail_text(self, tokenizer: Any) -> str:
        return str(tokenizer.decode(self.token_ids[-self.tail :], skip_special_tokens=True))

    def generation(self, tokenizer: Any) -> Generation:
        """Decode, and cut at the first stop string."""
        ids = self.token_ids[:-1] if self.finish_reason == "eos" else self.token_ids
        text = tokenizer.decode(ids, skip_special_tokens=True)
        return Generation(
            token_ids=tuple(self.token_ids),
            text=before_stop(text, self.stop),
            finish_reason=self.finish_reason,
            prompt_tokens=len(self.context),
            new_tokens=len(self.token_ids),
            cut_tokens=self.cut_tokens,
            error=self.error,
            thinking_cut=bool(self.thinking and self.thinking.was_cut),
        )
