"""The room that one request has: the context less what is reserved for the answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmjobs.chat.backend import AnswerStream, Backend, Ending, Sampling
from llmjobs.chat.messages import Message
from llmjobs.errors import LlmjobsError
from llmjobs.thinking import split_reply

UNLIMITED = 1 << 20
"""Tokens taken where neither the model nor the settings say how many there are."""


@dataclass
class BackendRoom:
    """What a strategy may use (see :class:`llmjobs.chat.strategies.base.Room`)."""

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
