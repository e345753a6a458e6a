"""What answers a chat, a local model or a server, behind one protocol; its room, and what can go wrong."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from llmjobs.chat.messages import Message
from llmjobs.clocks import DeviceClock
from llmjobs.errors import LlmjobsError
from llmjobs.thinking import split_reply

# What answers: a model here (`local`) or a server (`endpoint`), behind one small protocol.

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

    def clock(self) -> DeviceClock | None:
        """Times spans on the model's device; None where there is none."""

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


# The room that one request has: the context less what is reserved for the answer.

UNLIMITED = 1 << 20
"""Tokens taken where neither the model nor the settings say how many there are."""


@dataclass
class BackendRoom:
    """What a strategy may use (see :class:`llmjobs.chat.strategies.Room`)."""

    backend: Backend
    context: int
    reserve: int

    @property
    def budget(self) -> int:
        """Tokens that the messages may have."""
        return self.context - self.reserve

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of these messages as a prompt."""
        return self.backend.count(messages)

    def complete(self, messages: Sequence[Message], max_new_tokens: int) -> tuple[str, int]:
        """Ask on the side, greedily: no random number is used up."""
        thinks = str(self.backend.effective.get("thinking", "")).startswith("on")
        most = self.reserve if thinks else min(max_new_tokens, self.reserve)
        text, ending = drain(self.backend.answer(messages, Sampling(most)))
        return split_reply(text).answer, ending.prompt_tokens + ending.new_tokens


def room_for(backend: Backend, sampling: Sampling, max_context: int | None) -> tuple[BackendRoom, Sampling]:
    """The room of a request, and its sampling with no longer an answer than there is room reserved for.

    At most half of the context is reserved.

    Raises:
        LlmjobsError: ``max_context`` is beyond what the model takes.

    """
    limit = backend.limit
    if max_context is not None and limit is not None and max_context > limit:
        raise LlmjobsError(f"max_context: {max_context:,} is more than the {limit:,} tokens that {backend.name} takes")
    context = max_context or limit or UNLIMITED
    reserve = max(min(sampling.max_new_tokens, context // 2), 1)
    return BackendRoom(backend, context, reserve), replace(sampling, max_new_tokens=reserve)


def drain(stream: AnswerStream) -> tuple[str, Ending]:
    """Run a stream to its end; its whole text and how it ended."""
    said: list[str] = []
    while True:
        try:
            said.append(next(stream))
        except StopIteration as ended:
            return "".join(said), ended.value


# What can go wrong in a turn. None of these leaves anything in the conversation.


class ContextFullError(LlmjobsError):
    """The conversation no longer fits into the context."""


class MessageTooLongError(LlmjobsError):
    """System prompt and newest message do not fit into the context even alone."""


class AnswerError(LlmjobsError):
    """What came back is no answer."""


class CallError(AnswerError):
    """A request to an endpoint gave no answer: no result, another try may give one."""


class EmptyCallError(CallError):
    """The answer of an endpoint is whole and has no text."""


class UnavailableError(CallError):
    """The endpoint cannot be reached, refuses the key, or asks to wait; no other request would do better."""
