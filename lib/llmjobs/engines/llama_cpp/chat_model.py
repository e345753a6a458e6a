"""Chat on llama.cpp: token by token, keys and values kept from one turn to the next."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from llmjobs.benchmarks.requests import common_length
from llmjobs.engines.llama_cpp import NOT_FINITE
from llmjobs.engines.llama_cpp.context import Context, ContextSettings, Logits
from llmjobs.engines.protocol import Sampling, Warn
from llmjobs.engines.transformers.generate import next_tokens
from llmjobs.errors import ModelError

log = logging.getLogger(__name__)
ROOM_STEP = 2048
"""A context grows by so many tokens, because one of the model's whole length would take gigabytes."""
Segment = list[Any]
"""``[tokens computed together, how many of them are still kept]``."""


class LlamaChatModel:
    """One conversation with a loaded model. Random numbers are its own, so that they can be saved."""

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
        """``keeps_keys`` off, or a model that cannot be put back (``can_crop`` off), computes every turn whole."""
        self.who, self.end_tokens = who, end_tokens
        self._model, self._settings, self._max_length = model, settings, max_length
        self._keeps = keeps_keys and can_crop
        if keeps_keys and not can_crop:
            warn(f"{who}: keys and values cannot be kept over turns (a recurrent model); every turn is computed whole")
        self._context: Context | None = None
        self._segments: list[Segment] = []
        self._random = torch.Generator()
        self._said: list[int] = []
        self._place = 0
        self._logits: Logits | None = None

    def read(self, ids: Sequence[int], max_new_tokens: int) -> int:
        """Read a prompt; returns how many of its tokens were still there from the turns before."""
        self._said, self._logits = [], None
        common = common_length(self._held, list(ids[:-1])) if self._keeps else 0
        self._cut(common)
        self._make_room(len(ids) + max_new_tokens)
        self._logits = self._compute(list(ids[common:]))
        self._place = len(ids)
        return common

    def next_token(self, sampling: Sampling) -> int:
        """Choose the next token of the answer.

        Raises:
            ModelError: the model computes no numbers.

        """
        if self._said:
            self._logits = self._decode([self._said[-1]], self._place + len(self._said) - 1)
        assert self._logits is not None
        if not np.isfinite(self._logits).all():
            raise ModelError(f"{self.who}: {NOT_FINITE}")
        self._said.append(next_tokens(torch.from_numpy(self._logits), [sampling], [self._random])[0])
        return self._said[-1]

    def finish(self, *, keep: bool) -> None:
        """End the answer: what came one by one leaves the cache; ``keep`` computes it again in one pass."""
        said, self._said, self._logits = self._said, [], None
        self._repair()
        if keep and said and self._keeps:
            self._compute(said)

    def seed(self, seed: int) -> None:
        """Random numbers from ``seed``; what was read is kept."""
        self._random.manual_seed(seed)

    def forget(self) -> None:
        """Keep nothing of what was read."""
        self._segments = []
        self._repair()

    def state(self) -> Mapping[str, Any]:
        """Random state and what the cache was computed from."""
        segments = [[list(tokens), kept] for tokens, kept in self._segments]
        return {"random": self._random.get_state().numpy().tobytes(), "segments": segments}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the random state and compute the cache again, the same tokens together as at first."""
        self._random.set_state(torch.frombuffer(bytearray(state["random"]), dtype=torch.uint8))
        self.forget()
        self._compute_again(state["segments"] if self._keeps else ())

    def close(self) -> None:
        """Free the context."""
        if self._context:
            self._context.close()
        self._context, self._segments = None, []

    @property
    def _held(self) -> list[int]:
        return [token for tokens, kept in self._segments for token in tokens[:kept]]

    def _compute_again(self, segments: Sequence[Segment]) -> None:
        for tokens, kept in segments:
            self._make_room(len(self._held) + len(tokens))
            self._compute(list(tokens))
            self._cut(len(self._held) - len(tokens) + kept)

    def _make_room(self, tokens: int) -> None:
        """Have a context for so many tokens; what a smaller one held is computed again."""
        if self._context and self._context.cells >= tokens:
            return
        cells = -(-tokens // ROOM_STEP) * ROOM_STEP
        held = self._segments
        self.close()
        self._context = Context(self.who, self._model, self._settings, cells)
        self._compute_again(held)

    def _compute(self, tokens: list[int]) -> Logits:
        logits = self._decode(tokens, len(self._held))
        self._segments.append([tokens, len(tokens)])
        return logits

    def _decode(self, tokens: Sequence[int], first: int) -> Logits:
        assert self._context is not None
        count = len(tokens)
        wanted = [*([False] * (count - 1)), True]
        return self._context.decode(tokens, range(first, first + count), [(0,)] * count, wanted)

    def _cut(self, length: int) -> None:
        """Keep the first ``length`` tokens."""
        surplus = len(self._held) - length
        while surplus > 0:
            last = self._segments[-1]
            taken = min(surplus, last[1])
            last[1] -= taken
            surplus -= taken
            if not last[1]:
                self._segments.pop()
        self._repair()

    def _repair(self) -> None:
        """Bring the context back to what the segments say, also after a pass that was cut off in the middle."""
        if self._context is None:
            return
        length = len(self._held)
        if not length:
            self._context.clear()
        elif not self._context.remove(0, length):
            held, self._segments = self._segments, []
            self._context.clear()
            self._compute_again(held)
