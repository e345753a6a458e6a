"""One answer: what is sent is planned, the answer streamed, its figures kept."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmjobs.chat.backend import Backend, Ending, FinishReason, Sampling
from llmjobs.chat.errors import AnswerError
from llmjobs.chat.messages import Message
from llmjobs.chat.room import room_for
from llmjobs.chat.strategies import Plan, Strategy
from llmjobs.thinking import ThinkingFilter, split_reply


@dataclass(frozen=True)
class Reply:
    """One answer and what it took. Token counts are of what was really sent."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    new_tokens: int
    reused_tokens: int
    """Of the prompt's tokens, those whose keys and values were still there."""
    dropped_tokens: int
    """Tokens of the conversation that the strategy did not send."""
    side_tokens: int
    """Tokens that the strategy itself used (summaries)."""
    ttft_s: float
    """Seconds from the question to the first piece of text, planning and summarising included."""
    real_s: float
    counted: str
    """Who counted: the ``tokenizer``, the ``server``, or an ``estimate``."""
    thinking: str | None = None
    """What the model wrote for itself before the answer; None where there was nothing."""
    thinking_tokens: int | None = None
    """Of the new tokens, those of the thinking; None where nobody counted them."""

    def thinking_record(self) -> dict[str, Any]:
        """The thinking as keys of a record; none where there was none."""
        return {} if self.thinking is None else {"thinking": self.thinking, "thinking_tokens": self.thinking_tokens}


class Answering:
    """Answers one conversation that ends with the user's message."""

    def __init__(
        self,
        backend: Backend,
        strategy: Strategy,
        messages: Sequence[Message],
        sampling: Sampling,
        max_context: int | None,
    ) -> None:
        """Nothing is sent before :meth:`pieces`."""
        self.backend, self.strategy, self.messages = backend, strategy, messages
        self.sampling, self.max_context = sampling, max_context
        self.text = ""
        """Everything that came, thinking included."""
        self._plan: Plan | None = None
        self._ending: Ending | None = None
        self._count = 0
        self._ttft_s: float | None = None
        self._real_s = 0.0

    @property
    def answer(self) -> str:
        """The answer so far, without the thinking."""
        return split_reply(self.text).answer.strip()

    def pieces(self) -> Iterator[str]:
        """Stream the answer (its thinking as empty pieces); closing the iterator stops the model.

        Raises:
            AnswerError: what came back is no answer, an empty one included.
            ContextFullError, MessageTooLongError: nothing was sent.

        """
        began = time.monotonic()
        room, sampling = room_for(self.backend, self.sampling, self.max_context)
        self._plan = self.strategy.plan(self.messages, room)
        stream = self.backend.answer(self._plan.messages, sampling)
        shown = ThinkingFilter()
        try:
            while self._ending is None:
                try:
                    piece = next(stream)
                except StopIteration as ended:
                    self._ending = ended.value
                    break
                if piece:
                    self._take(piece, time.monotonic() - began)
                yield shown.add(piece) if piece else piece
            if held := shown.end():
                yield held
        finally:
            self._real_s = time.monotonic() - began
            stream.close()
        if self.answer:
            return
        if self.text.strip():
            raise AnswerError(
                f"{self.backend.name}: the thinking took all of the {sampling.max_new_tokens:,} tokens and no answer"
                " came; set a larger thinking: or max_new_tokens, or thinking: off"
            )
        raise AnswerError(f"{self.backend.name}: the answer is empty; ask again or in other words")

    def _take(self, piece: str, since_s: float) -> None:
        self.text += piece
        self._count += 1
        if self._ttft_s is None:
            self._ttft_s = since_s

    def reply(self) -> Reply:
        """The answer so far: ``interrupted`` where the stream did not come to its end."""
        assert self._plan is not None
        ending = self._ending or Ending("interrupted", self._plan.tokens, self._count, counted="estimate")
        said = split_reply(self.text)
        return Reply(
            text=said.answer.strip(),
            finish_reason=ending.finish_reason,
            prompt_tokens=ending.prompt_tokens,
            new_tokens=ending.new_tokens,
            reused_tokens=ending.reused_tokens,
            dropped_tokens=self._plan.dropped_tokens,
            side_tokens=self._plan.side_tokens,
            ttft_s=self._real_s if self._ttft_s is None else self._ttft_s,
            real_s=self._real_s,
            counted=ending.counted,
            thinking=said.thinking,
            thinking_tokens=None if said.thinking is None else ending.thinking_tokens,
        )
