"""A backend whose calls are journaled, limited and counted: the agent and the judge talk through it unchanged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from llmjobs.calls.endpoint import WholeAnswers
from llmjobs.calls.paid import PaidCalls
from llmjobs.calls.spending import MinuteLimit, Spending, most_prompt_tokens
from llmjobs.chat.backend import AnswerStream, Backend, Counted, Ending, FinishReason, Sampling, drain
from llmjobs.chat.messages import Message
from llmjobs.clocks import DeviceClock
from llmjobs.errors import CallError
from llmjobs.work.call_journal import CallJournal, call_key

OpenEndpoint = Callable[[WholeAnswers], Backend]
"""Context manager around each request → the endpoint."""


class PaidBackend:
    """One conversation with an endpoint. ``label`` distinguishes its calls from those of other conversations."""

    def __init__(
        self,
        endpoint: OpenEndpoint,
        label: str,
        journal: CallJournal,
        *,
        account: str,
        spending: Spending,
        minute: MinuteLimit,
        changes: Mapping[str, str] | None = None,
    ) -> None:
        """``account`` is the name for looking up prices; nothing is sent before :meth:`answer`.

        ``changes`` are the parameters that the server does not take (see ``calls.parameters``), learned or not yet.
        """
        self._around = WholeAnswers()
        self.inner = endpoint(WholeAnswers(lambda: self._around.before(), lambda lost: self._around.lost(lost)))
        self.label, self.name = label, self.inner.name
        self._journal = journal
        self._paid = PaidCalls(journal, account, spending, minute, changes if changes is not None else {})
        self._calls = 0
        self._seed = 0

    @property
    def limit(self) -> int | None:
        """The endpoint's limit."""
        return self.inner.limit

    @property
    def effective(self) -> Mapping[str, Any]:
        """The endpoint's settings."""
        return self.inner.effective

    def clock(self) -> DeviceClock | None:
        """The endpoint's clock."""
        return self.inner.clock()

    def count(self, messages: Sequence[Message]) -> int:
        """The endpoint's estimate, which is rather too high."""
        return self.inner.count(messages)

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> AnswerStream:
        """The answer of an earlier attempt if there is one, otherwise a call, which is on disk before it is passed on.

        Raises:
            CallError: no answer came; the reason is in the journal, and the call is made again another time.
            SpendingLimitError: the call could pass a limit.

        """
        self._calls += 1
        request = {"label": self.label, "call": self._calls, "effective": self.effective, "seed": self._seed}
        how = asdict(sampling)
        how["max_new_tokens"] += how.pop("thinking_tokens")  # what is sent, and what earlier runs kept
        key = call_key({**request, "messages": [m.to_builtin() for m in messages], "sampling": how})
        most = (most_prompt_tokens(m.content for m in messages), sampling.most_tokens)

        def send(around: WholeAnswers) -> dict[str, Any]:
            self._around = around
            text, ending = drain(self.inner.answer(messages, sampling))
            if not text.strip():
                raise CallError(f"{self.name}: the answer is empty")
            call: dict[str, Any] = {"text": text, "finish_reason": ending.finish_reason}
            call |= {"prompt_tokens": ending.prompt_tokens, "new_tokens": ending.new_tokens, "counted": ending.counted}
            if ending.counted != "server":
                new = min(len(text.encode()), sampling.most_tokens)
                call["booked"] = [most[0], max(new, ending.new_tokens)]
            return call

        call = self._journal.find(key) or self._paid.make(key, self.label, most, send)
        yield str(call["text"])
        ending = cast(FinishReason, call["finish_reason"]), int(call["prompt_tokens"]), int(call["new_tokens"])
        return Ending(*ending, counted=cast(Counted, call["counted"]))

    def start(self, seed: int) -> None:
        """Begin the conversation."""
        self._seed, self._calls = seed, 0
        self.inner.start(seed)

    def reseed(self, seed: int) -> None:
        """Use another seed from here on."""
        self._seed = seed
        self.inner.reseed(seed)

    def state(self) -> Mapping[str, Any]:
        """Empty, because the journal has the state."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...
