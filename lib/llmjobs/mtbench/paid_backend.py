"""A backend whose calls are journaled, limited and counted: the agent and the judge talk through it unchanged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from llmjobs.chat.backend import AnswerStream, Backend, Counted, Ending, FinishReason, Sampling
from llmjobs.chat.endpoint import Lost, WholeAnswers
from llmjobs.chat.errors import CallError
from llmjobs.chat.messages import Message
from llmjobs.chat.room import drain
from llmjobs.mtbench.calls import Call, CallJournal, call_key
from llmjobs.mtbench.limits import Held, MinuteLimit, Spending, most_prompt_tokens

OpenEndpoint = Callable[[WholeAnswers], Backend]
"""What to call around each request → the endpoint."""


class PaidBackend:
    """One conversation with an endpoint. ``label`` tells its calls from those of any other conversation."""

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
        """``account`` is the name under which prices are given; nothing is sent before :meth:`answer`.

        ``changes`` are the parameters that the server does not take (see ``chat.parameters``), learned or not yet.
        """
        self.inner = endpoint(WholeAnswers(self._before, self._lost))
        self.label, self.name, self.account = label, self.inner.name, account
        self._journal, self._spending, self._minute = journal, spending, minute
        self._changes = changes if changes is not None else {}
        self._calls = 0
        self._seed = 0
        self._key = ""
        self._most = (0, 0)
        self._held: Held | None = None

    @property
    def limit(self) -> int | None:
        """As the endpoint's."""
        return self.inner.limit

    @property
    def effective(self) -> Mapping[str, Any]:
        """As the endpoint's."""
        return self.inner.effective

    def count(self, messages: Sequence[Message]) -> int:
        """As the endpoint's: an estimate on the high side."""
        return self.inner.count(messages)

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> AnswerStream:
        """The answer of an earlier attempt where there is one, else a call; on disk before it is passed on.

        Raises:
            CallError: no answer came; the reason is in the journal, and the call is made again another time.
            SpendingLimitError: the call could pass a limit.

        """
        self._calls += 1
        request = {"label": self.label, "call": self._calls, "effective": self.effective, "seed": self._seed}
        key = call_key({**request, "messages": [m.to_builtin() for m in messages], "sampling": asdict(sampling)})
        call = self._journal.find(key) or self._make(key, messages, sampling)
        yield str(call["text"])
        ending = cast(FinishReason, call["finish_reason"]), int(call["prompt_tokens"]), int(call["new_tokens"])
        return Ending(*ending, counted=cast(Counted, call["counted"]))

    def _make(self, key: str, messages: Sequence[Message], sampling: Sampling) -> Call:
        self._key, self._most = key, (most_prompt_tokens(messages), sampling.max_new_tokens)
        try:
            self._hold()
            text, ending = drain(self.inner.answer(messages, sampling))
            if not text.strip():
                raise CallError(f"{self.name}: the answer is empty")
            call: Call = {**self._head(), "text": text, "finish_reason": ending.finish_reason}
            call |= {"prompt_tokens": ending.prompt_tokens, "new_tokens": ending.new_tokens, "counted": ending.counted}
            if ending.counted != "server":
                new = min(len(text.encode()), sampling.max_new_tokens)
                call["booked"] = [self._most[0], max(new, ending.new_tokens)]
            self._journal.add(key, call)
            self._settle(call)
            return call
        finally:
            self._settle(None)

    def _before(self) -> None:
        """Before each request: what it may take at most is set aside, and the endpoint's limits a minute are kept."""
        self._hold()
        self._minute.wait(sum(self._most))

    def _lost(self, lost: Lost) -> None:
        """After a request without an answer: the reason is written down, and what it may have cost is booked."""
        call: Call = {**self._head(), "failed": lost.reason}
        if lost.may_cost:
            counts = (lost.prompt_tokens, lost.new_tokens)
            booked = [most if count is None else count for count, most in zip(counts, self._most, strict=True)]
            call["booked"] = booked
        self._journal.add(self._key, call)
        self._settle(call)

    def _head(self) -> Call:
        changed = {"parameters": dict(self._changes)} if self._changes else {}
        return {"name": self.account, "label": self.label, **changed}

    def _hold(self) -> None:
        if self._held is None:
            self._held = self._spending.hold(self.account, *self._most)

    def _settle(self, call: Call | None) -> None:
        """Book what a request took in the place of what was set aside."""
        if self._held is not None:
            held, self._held = self._held, None
            self._spending.settle(held, call)

    def start(self, seed: int) -> None:
        """Begin the conversation."""
        self._seed, self._calls = seed, 0
        self.inner.start(seed)

    def reseed(self, seed: int) -> None:
        """Another seed from here on."""
        self._seed = seed
        self.inner.reseed(seed)

    def state(self) -> Mapping[str, Any]:
        """The journal holds it."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""

    def close(self) -> None:
        """Nothing to free."""
