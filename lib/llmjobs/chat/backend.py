"""What answers: a model here (``local``) or a server (``endpoint``), behind one small protocol."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from llmjobs.chat.messages import Message

FinishReason = Literal["stop", "length", "interrupted"]
Counted = Literal["tokenizer", "server", "estimate"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen: ``temperature`` 0 takes the likeliest; ``top_p`` 1 cuts nothing off."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer ended, and its tokens."""

    finish_reason: FinishReason
    prompt_tokens: int
    new_tokens: int
    reused_tokens: int = 0
    """Of the prompt's tokens, those whose keys and values were still there."""
    counted: Counted = "tokenizer"
    thinking_tokens: int | None = None
    """Of the new tokens, those of the thinking; None where nobody counted them."""


AnswerStream = Generator[str, None, Ending]
"""Yields pieces of text (also empty ones), returns the ending."""


class Backend(Protocol):
    """Answers conversations, one at a time."""

    name: str

    @property
    def limit(self) -> int | None:
        """Longest prompt and answer together in tokens; None where the server does not say."""

    @property
    def effective(self) -> Mapping[str, Any]:
        """What really answers: builtins for records and fingerprints."""

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that these messages become (for an endpoint an estimate)."""

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> AnswerStream:
        """Stream the answer; closing the generator stops the model.

        Raises:
            AnswerError: what came back is no answer.

        """

    def start(self, seed: int) -> None:
        """Begin a conversation: nothing is kept from another one, and the random numbers are those of ``seed``."""

    def reseed(self, seed: int) -> None:
        """The random numbers of ``seed`` from here on; what was read is kept."""

    def state(self) -> Mapping[str, Any]:
        """Builtins that make the rest of a conversation what it would have been."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""

    def close(self) -> None:
        """Free what was loaded."""
