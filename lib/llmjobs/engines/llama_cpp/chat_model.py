"""Chat on llama.cpp: token by token, with keys and values kept between turns."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from llmjobs.engines.chat_state import DrawnAnswer, KeptTokens, Piece
from llmjobs.engines.llama_cpp import NOT_FINITE
from llmjobs.engines.llama_cpp.context import Context, ContextSettings, Logits
from llmjobs.engines.protocol import Sampling, Warn
from llmjobs.errors import ModelError

log = logging.getLogger(__name__)
ROOM_STEP = 2048
"""A context grows in steps of this many tokens, because one of the model's full length would take gigabytes."""


class LlamaChatModel:
    """One conversation with a loaded model. It has its own random numbers, so that they can be saved."""

    def __init__(
        self,
        who: str,
        model: Any,
        settings: ContextSettings,
        end_tokens: frozenset[int],
        max_length: int,
        *,
        keeps_keys: bool = True,
        can_crop: bool = True,
        warn: Warn = log.warning,
    ) -> None:
        """Without ``keeps_keys``, or without ``can_crop`` (no rewinding), each turn is computed from the beginning."""
        self.who, self.end_tokens = who, end_tokens
        self._model, self._settings, self._max_length = model, settings, max_length
        self._keeps = keeps_keys and can_crop
        if keeps_keys and not can_crop:
            warn(
                f"{who}: keys and values cannot be reused between turns (a recurrent model); each turn is"
                " computed from the beginning"
            )
        self._context: Context | None = None
        self._kept, self._answer = KeptTokens(), DrawnAnswer()
        self._place = 0
        self._logits: Logits | None = None

    def read(self, ids: Sequence[int], max_new_tokens: int) -> int:
        """Read a prompt; return how many of its tokens were still cached from earlier turns."""
        self._answer.take()
        self._logits = None
        common = self._kept.reusable(ids) if self._keeps else 0
        self._cut(common)
        self._make_room(len(ids) + max_new_tokens)
        self._logits = self._compute(list(ids[common:]))
        self._place = len(ids)
        return common

    def next_token(self, sampling: Sampling) -> int:
        """Choose the next token of the answer.

        Raises:
            ModelError: the model's output is not a number.

        """
        logits = self._advanced()
        if not np.isfinite(logits).all():
            raise ModelError(f"{self.who}: {NOT_FINITE}")
        return self._answer.draw(torch.from_numpy(logits), sampling)

    def write(self, token: int) -> None:
        """Add a token to the answer that the model did not choose."""
        self._advanced()
        self._answer.add(token)

    def finish(self, *, keep: bool) -> None:
        """End the answer: remove its tokens from the cache; ``keep`` computes them again in one pass."""
        said, self._logits = self._answer.take(), None
        self._repair()
        if keep and said and self._keeps:
            self._compute(said)

    def seed(self, seed: int) -> None:
        """Restart the random numbers from ``seed``; the cache is kept."""
        self._answer.seed(seed)

    def forget(self) -> None:
        """Clear the cache."""
        self._kept.take()
        self._repair()

    def state(self) -> Mapping[str, Any]:
        """The random state, and the tokens that the cache was computed from."""
        return {"random": self._answer.random_state(), "segments": self._kept.to_builtin()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the random state and recompute the cache with the original grouping of tokens."""
        self._answer.set_random_state(state["random"])
        self.forget()
        self._compute_again(state["segments"] if self._keeps else ())

    def close(self) -> None:
        if self._context:
            self._context.close()
        self._context = None
        self._kept.take()

    def _compute_again(self, pieces: Sequence[Piece]) -> None:
        for tokens, kept in pieces:
            self._make_room(len(self._kept) + len(tokens))
            self._compute(list(tokens))
            self._cut(len(self._kept) - len(tokens) + kept)

    def _advanced(self) -> Logits:
        """Logits after all tokens so far."""
        if said := self._answer.tokens:
            self._logits = self._decode([said[-1]], self._place + len(said) - 1)
        assert self._logits is not None
        return self._logits

    def _make_room(self, tokens: int) -> None:
        """Make a context for this many tokens; the content of a smaller one is computed again."""
        if self._context and self._context.cells >= tokens:
            return
        cells = -(-tokens // ROOM_STEP) * ROOM_STEP
        held = self._kept.take()
        self.close()
        self._context = Context(self.who, self._model, self._settings, cells)
        self._compute_again(held)

    def _compute(self, tokens: list[int]) -> Logits:
        logits = self._decode(tokens, len(self._kept))
        self._kept.add(tokens)
        return logits

    def _decode(self, tokens: Sequence[int], first: int) -> Logits:
        assert self._context is not None
        count = len(tokens)
        wanted = [*([False] * (count - 1)), True]
        return self._context.decode(tokens, range(first, first + count), [(0,)] * count, wanted)

    def _cut(self, length: int) -> None:
        """Keep the first ``length`` tokens."""
        self._kept.cut(length)
        self._repair()

    def _repair(self) -> None:
        """Restore the context to what the segments say, also after a pass that was interrupted."""
        if self._context is None:
            return
        length = len(self._kept)
        if not length:
            self._context.clear()
        elif not self._context.remove(0, length):
            held = self._kept.take()
            self._context.clear()
            self._compute_again(held)
