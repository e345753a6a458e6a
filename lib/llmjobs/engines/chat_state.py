"""State of a conversation on any engine that decodes token by token: kept tokens and the answer in progress."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmjobs.benchmarks.scoring_requests import common_length
from llmjobs.engines.protocol import Sampling
from llmjobs.engines.sampling import next_tokens

Piece = list[Any]
"""``[tokens that were computed together, how many of them are still kept]``."""


class KeptTokens:
    """The tokens whose keys and values are kept from turn to turn, in the pieces that were computed together.

    A restored conversation computes the same pieces again, because the grouping moves the last bits of the numbers.
    """

    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    @property
    def tokens(self) -> list[int]:
        """All kept tokens in order."""
        return [token for tokens, kept in self.pieces for token in tokens[:kept]]

    def __len__(self) -> int:
        """How many tokens are kept."""
        return sum(kept for _, kept in self.pieces)

    def add(self, tokens: Sequence[int]) -> None:
        """Add tokens that were computed together after the others."""
        self.pieces.append([list(tokens), len(tokens)])

    def cut(self, length: int) -> None:
        """Keep the first ``length`` tokens."""
        surplus = len(self) - max(length, 0)
        while surplus > 0:
            last = self.pieces[-1]
            taken = min(surplus, last[1])
            last[1] -= taken
            surplus -= taken
            if not last[1]:
                self.pieces.pop()

    def reusable(self, prompt: Sequence[int]) -> int:
        """Return how many tokens of a prompt need not be computed; the last one must be, to read its logits."""
        return common_length(self.tokens, list(prompt[:-1]))

    def take(self) -> list[Piece]:
        """Return the pieces and clear them."""
        pieces, self.pieces = self.pieces, []
        return pieces

    def to_builtin(self) -> list[Piece]:
        """A copy of the pieces for a saved conversation."""
        return [[list(tokens), kept] for tokens, kept in self.pieces]


class DrawnAnswer:
    """The answer in progress. It has its own random numbers, so that a conversation can be saved."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._random = torch.Generator()

    def draw(self, logits: Tensor, sampling: Sampling) -> int:
        """Choose the next token from ``logits`` [1, vocabulary]."""
        self.tokens += next_tokens(logits, [sampling], [self._random])
        return self.tokens[-1]

    def add(self, token: int) -> None:
        """Add a token that the model did not choose; uses up no random number."""
        self.tokens.append(token)

    def take(self) -> list[int]:
        """Return the answer's tokens and start a new answer."""
        tokens, self.tokens = self.tokens, []
        return tokens

    def seed(self, seed: int) -> None:
        """Restart the random numbers from ``seed``."""
        self._random.manual_seed(seed)

    def random_state(self) -> bytes:
        """The state of the random numbers."""
        return self._random.get_state().numpy().tobytes()

    def set_random_state(self, state: bytes) -> None:
        """Continue the random numbers from a saved state."""
        self._random.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
