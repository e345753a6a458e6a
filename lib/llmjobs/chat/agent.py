"""The agent: a memory, a strategy that chooses what to send, and the answer with its measurements."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmjobs.chat.backend import Backend, Ending, FinishReason, Sampling, room_for
from llmjobs.chat.messages import Message
from llmjobs.chat.strategies import NoHistory, Plan, Strategy, make_strategy
from llmjobs.errors import AnswerError
from llmjobs.thinking import ThinkingFilter, split_reply


@dataclass(frozen=True)
class Reply:
    """One answer and its measurements. Token counts refer to what was actually sent."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    new_tokens: int
    reused_tokens: int
    """Prompt tokens whose keys and values were still cached."""
    dropped_tokens: int
    """Tokens of the conversation that the strategy did not send."""
    side_tokens: int
    """Tokens that the strategy itself used (summaries)."""
    ttft_s: float
    """Seconds from the question to the first piece of text, including planning and summarizing."""
    real_s: float
    counted: str
    """Where the token counts come from: the ``tokenizer``, the ``server``, or an ``estimate``."""
    thinking: str | None = None
    """The thinking before the answer; None if there was none."""
    thinking_tokens: int | None = None
    """How many of the new tokens are thinking; None if nobody counted them."""
    thinking_cut: bool = False
    """The thinking was ended because it had used up its tokens."""

    def thinking_record(self) -> dict[str, Any]:
        """The thinking as keys of a record; empty if there was none."""
        if self.thinking is None:
            return {}
        found = {"thinking": self.thinking, "thinking_tokens": self.thinking_tokens}
        return found | ({"thinking_cut": True} if self.thinking_cut else {})


class Answering:
    """The answer to one conversation that ends with the user's message."""

    def __init__(
        self,
        backend: Backend,
        strategy: Strategy,
        messages: Sequence[Message],
        sampling: Sampling,
        max_context: int | None,
        *,
        may_be_empty: bool = False,
    ) -> None:
        """Store the arguments; nothing is sent before :meth:`pieces`. ``may_be_empty``: no text is an answer too."""
        self.backend, self.strategy, self.messages = backend, strategy, messages
        self.sampling, self.max_context = sampling, max_context
        self.may_be_empty, self.text = may_be_empty, ""
        """All text so far, including thinking."""
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
            AnswerError: the reply is not an answer, for example empty.
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
        assert self._ending is not None
        is_full = self._ending.finish_reason == "length"
        if self.text.strip() or (is_full and not self.text):  # a server keeps the thinking apart, or to itself
            what = "ended its turn while it was thinking"
            if is_full:
                what = f"spent all {sampling.most_tokens:,} tokens on thinking"
            raise AnswerError(
                f"{self.backend.name}: the model {what} and gave no answer; raise thinking: or max_new_tokens, or set"
                " thinking: off"
            )
        if not self.may_be_empty:
            raise AnswerError(f"{self.backend.name}: the answer is empty; ask again or rephrase the question")

    def _take(self, piece: str, since_s: float) -> None:
        self.text += piece
        self._count += 1
        if self._ttft_s is None:
            self._ttft_s = since_s

    def reply(self) -> Reply:
        """Return the answer so far; ``interrupted`` if the stream did not reach its end."""
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
            thinking_cut=ending.thinking_cut,
        )


@dataclass
class Agent:
    """A conversation with a backend. A turn that fails leaves the conversation unchanged."""

    backend: Backend
    system: str | None = None
    strategy: str = "full"
    history: bool = True
    max_context: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    messages: list[Message] = field(default_factory=list)
    """User and assistant messages in turn; the system message is in ``system``."""
    may_be_empty: bool = False
    """Whether a turn that the model ends without text is an answer, as in a measurement, or an error, as in a chat."""
    last: Reply | None = None
    """The newest answer with its measurements."""

    def __post_init__(self) -> None:
        """Begin the conversation on the backend."""
        self._memory = make_strategy(self.strategy)
        self.backend.start(self.seed)

    def stream(self, text: str) -> Iterator[str]:
        """Answer one message piece by piece; afterwards, :attr:`last` has the measurements.

        Closing the iterator, or Ctrl-C, stops the answer; the text so far is kept as the answer.

        Raises:
            AnswerError, ContextFullError, MessageTooLongError: the conversation is unchanged.

        """
        asked = [*self.messages, Message("user", text)]
        strategy = self._memory if self.history else NoHistory()
        answering = Answering(
            self.backend,
            strategy,
            self._with_system(asked),
            self.sampling,
            self.max_context,
            may_be_empty=self.may_be_empty,
        )
        self.last = None
        try:
            yield from answering.pieces()
        except (GeneratorExit, KeyboardInterrupt):
            if answering.answer:
                self._keep(asked, answering.reply())
            raise
        self._keep(asked, answering.reply())

    def ask(self, text: str) -> Reply:
        """Answer one message and return the whole text (see :meth:`stream`)."""
        for _ in self.stream(text):
            pass
        assert self.last is not None
        return self.last

    def choose(self, strategy: str) -> None:
        """Change the strategy; a running summary starts again from nothing."""
        self._memory, self.strategy = make_strategy(strategy), strategy

    def undo(self) -> bool:
        """Remove the last exchange; False if there is none."""
        had = bool(self.messages)
        del self.messages[-2:]
        return had

    def reset(self) -> None:
        """Clear the conversation; the system message and settings stay."""
        self.messages.clear()
        self.choose(self.strategy)

    def replace(self, messages: Sequence[Message]) -> None:
        """Replace the conversation."""
        self.reset()
        self.messages = list(messages)

    def context_tokens(self) -> int:
        """Tokens of the whole conversation as a prompt with an empty question."""
        return self.backend.count(self._with_system([*self.messages, Message("user", "")]))

    def state(self) -> dict[str, Any]:
        """What a resume needs besides the messages: the state of the strategy and of the backend."""
        return {"strategy": dict(self._memory.state()), "backend": dict(self.backend.state())}

    def restore(self, messages: Sequence[Message], state: Mapping[str, Any]) -> None:
        """Continue a saved conversation."""
        self.messages = list(messages)
        self._memory.restore(state["strategy"])
        self.backend.restore(state["backend"])

    def _with_system(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        return (*((Message("system", self.system),) if self.system else ()), *messages)

    def _keep(self, asked: list[Message], reply: Reply) -> None:
        self.messages = [*asked, Message("assistant", reply.text)]
        self.last = reply


def meter(agent: Agent, reply: Reply) -> str:
    """``turn 3 · 214 of 2,048 tokens sent, 180 reused · 12 new in 0.8 s, first after 0.05 s``."""
    limit = agent.max_context or agent.backend.limit
    about = "about " if reply.counted == "estimate" else ""
    sent = f"{about}{reply.prompt_tokens:,}{f' of {limit:,}' if limit else ''} tokens sent"
    parts = [f"turn {len(agent.messages) // 2}", sent + _kept(reply)]
    if reply.dropped_tokens:
        parts.append(f"{reply.dropped_tokens:,} dropped by {agent.strategy if agent.history else 'history off'}")
    if reply.side_tokens:
        parts.append(f"{reply.side_tokens:,} for the summary")
    parts.append(f"{reply.new_tokens:,} new in {reply.real_s:.1f} s, first after {reply.ttft_s:.2f} s")
    if reply.thinking_cut:
        parts.append("thinking ended at its limit")
    if reply.finish_reason != "stop":
        parts.append({"length": "cut off at the maximum length", "interrupted": "stopped"}[reply.finish_reason])
    return " · ".join(parts)


def _kept(reply: Reply) -> str:
    return f", {reply.reused_tokens:,} reused" if reply.counted == "tokenizer" else ""
