"""The agent: a memory, a strategy that chooses from it, and something that answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmjobs.chat.answering import Answering, Reply
from llmjobs.chat.backend import Backend, Sampling
from llmjobs.chat.messages import Message
from llmjobs.chat.strategies import STRATEGIES
from llmjobs.chat.strategies.none import NoHistory


@dataclass
class Agent:
    """A conversation with a backend. A turn that fails leaves the conversation as it was."""

    backend: Backend
    system: str | None = None
    strategy: str = "full"
    history: bool = True
    max_context: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    messages: list[Message] = field(default_factory=list)
    """User and assistant in turn; the system message stands in ``system``."""
    last: Reply | None = None
    """The newest answer with its figures."""

    def __post_init__(self) -> None:
        """Begin the conversation on the backend."""
        self._memory = STRATEGIES[self.strategy]()
        self.backend.start(self.seed)

    def stream(self, text: str) -> Iterator[str]:
        """Answer one message piece by piece; then :attr:`last` holds the figures.

        Closing the iterator, or Ctrl-C, stops the answer; what was said until then is kept as the answer.

        Raises:
            AnswerError, ContextFullError, MessageTooLongError: the conversation stays as it was.

        """
        asked = [*self.messages, Message("user", text)]
        strategy = self._memory if self.history else NoHistory()
        answering = Answering(self.backend, strategy, self._with_system(asked), self.sampling, self.max_context)
        self.last = None
        try:
            yield from answering.pieces()
        except (GeneratorExit, KeyboardInterrupt):
            if answering.answer:
                self._keep(asked, answering.reply())
            raise
        self._keep(asked, answering.reply())

    def ask(self, text: str) -> Reply:
        """Answer one message whole (see :meth:`stream`)."""
        for _ in self.stream(text):
            pass
        assert self.last is not None
        return self.last

    def choose(self, strategy: str) -> None:
        """Change the strategy; a running summary starts anew."""
        self._memory, self.strategy = STRATEGIES[strategy](), strategy

    def undo(self) -> bool:
        """Forget the last exchange; False where there is none."""
        had = bool(self.messages)
        del self.messages[-2:]
        return had

    def reset(self) -> None:
        """Forget the conversation; system message and settings stay."""
        self.messages.clear()
        self.choose(self.strategy)

    def replace(self, messages: Sequence[Message]) -> None:
        """Take another conversation in the place of this one."""
        self.reset()
        self.messages = list(messages)

    def context_tokens(self) -> int:
        """Tokens of the whole conversation so far, as a prompt with an empty question."""
        return self.backend.count(self._with_system([*self.messages, Message("user", "")]))

    def state(self) -> dict[str, Any]:
        """What a resume needs besides the messages: the strategy's and the backend's state."""
        return {"strategy": dict(self._memory.state()), "backend": dict(self.backend.state())}

    def restore(self, messages: Sequence[Message], state: Mapping[str, Any]) -> None:
        """Take up a saved conversation."""
        self.messages = list(messages)
        self._memory.restore(state["strategy"])
        self.backend.restore(state["backend"])

    def _with_system(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        return (*((Message("system", self.system),) if self.system else ()), *messages)

    def _keep(self, asked: list[Message], reply: Reply) -> None:
        self.messages = [*asked, Message("assistant", reply.text)]
        self.last = reply
