"""The protocol of what answers a chat (a local model or a server), the room for a request, and the errors."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from llmjobs.chat.messages import Message
from llmjobs.clocks import DeviceClock
from llmjobs.errors import LlmjobsError
from llmjobs.thinking import split_reply

FinishReason = Literal["stop", "length", "interrupted"]
Counted = Literal["tokenizer", "server", "estimate"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen: ``temperature`` 0 takes the most likely one; ``top_p`` 1 keeps all.

    ``thinking_tokens`` are for thinking before the answer, in addition to the answer's ``max_new_tokens``. A server has
    one limit for both: their sum.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    thinking_tokens: int = 0

    @property
    def most_tokens(self) -> int:
        """Longest reply, thinking and answer together."""
        return self.max_new_tokens + self.thinking_tokens

    def within(self, tokens: int) -> "Sampling":
        """Return the same for a reply of at most ``tokens``; if they are few, thinking and answer get half each."""
        if self.most_tokens <= tokens:
            return self
        answer = min(self.max_new_tokens, max(tokens - self.thinking_tokens, (tokens + 1) // 2))
        answer = answer if self.thinking_tokens else tokens
        return replace(self, max_new_tokens=answer, thinking_tokens=tokens - answer)


@dataclass(frozen=True, slots=True)
class Ending:
    """How an answer ended, and its token counts."""

    finish_reason: FinishReason
    prompt_tokens: int
    new_tokens: int
    reused_tokens: int = 0
    """Prompt tokens whose keys and values were still cached."""
    counted: Counted = "tokenizer"
    thinking_tokens: int | None = None
    """How many of the new tokens are thinking; None if nobody counted them."""
    thinking_cut: bool = False
    """The thinking was ended because it had used up its tokens."""


AnswerStream = Generator[str, None, Ending]
"""Yields pieces of text, some of them empty, and returns the ending."""


class Backend(Protocol):
    """Answers conversations, one at a time."""

    name: str

    @property
    def limit(self) -> int | None:
        """Maximum number of tokens of prompt and answer together; None if the server does not say."""

    @property
    def effective(self) -> Mapping[str, Any]:
        """Properties of what actually answers, as builtins for records and fingerprints."""

    def clock(self) -> DeviceClock | None:
        """A timer for the model's device; None if there is none."""

    def count(self, messages: Sequence[Message]) -> int:
        """Number of tokens of these messages as a prompt (an estimate for an endpoint)."""

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> AnswerStream:
        """Stream the answer; closing the generator stops the model.

        Raises:
            AnswerError: the reply is not an answer.

        """

    def start(self, seed: int) -> None:
        """Begin a conversation with nothing cached, and random numbers from ``seed``."""

    def reseed(self, seed: int) -> None:
        """Restart the random numbers from ``seed``; the cache is kept."""

    def state(self) -> Mapping[str, Any]:
        """Builtins from which the rest of the conversation continues as if it had not been interrupted."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""

    def close(self) -> None: ...


# The room for one request is the context minus what is reserved for the answer.

UNLIMITED = 1 << 20
"""Context size if neither the model nor the settings give one, in tokens."""


@dataclass
class BackendRoom:
    """The room that a strategy may use (see :class:`llmjobs.chat.strategies.Room`)."""

    backend: Backend
    context: int
    reserve: int
    thinking_tokens: int = 0
    """The part of the reserve that is for thinking."""

    @property
    def budget(self) -> int:
        """Maximum number of tokens of the messages."""
        return self.context - self.reserve

    def count(self, messages: Sequence[Message]) -> int:
        """Number of tokens of these messages as a prompt."""
        return self.backend.count(messages)

    def complete(self, messages: Sequence[Message], max_new_tokens: int) -> tuple[str, int]:
        """Ask a side question with greedy decoding, so no random number is used up."""
        sampling = Sampling(max_new_tokens, thinking_tokens=self.thinking_tokens).within(self.reserve)
        text, ending = drain(self.backend.answer(messages, sampling))
        return split_reply(text).answer, ending.prompt_tokens + ending.new_tokens


def room_for(backend: Backend, sampling: Sampling, max_context: int | None) -> tuple[BackendRoom, Sampling]:
    """Return the room of a request, and its sampling with the reply limited to the reserved room.

    At most half of the context is reserved.

    Raises:
        LlmjobsError: ``max_context`` is larger than the model allows.

    """
    limit = backend.limit
    if max_context is not None and limit is not None and max_context > limit:
        raise LlmjobsError(f"max_context: {max_context:,} is more than {backend.name}'s limit of {limit:,} tokens")
    context = max_context or limit or UNLIMITED
    reserve = max(min(sampling.most_tokens, context // 2), 1)
    fitted = sampling.within(reserve)
    return BackendRoom(backend, context, reserve, fitted.thinking_tokens), fitted


def drain(stream: AnswerStream) -> tuple[str, Ending]:
    """Run a stream to its end; return its whole text and how it ended."""
    said: list[str] = []
    while True:
        try:
            said.append(next(stream))
        except StopIteration as ended:
            return "".join(said), ended.value


# Errors of a turn. None of them changes the conversation.


class MessageTooLongError(LlmjobsError):
    """The system prompt and the newest message alone do not fit into the context."""
