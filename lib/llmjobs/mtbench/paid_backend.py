"""A backend whose calls are journaled, limited and counted: the agent and the judge talk through it unchanged."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from llmjobs.chat.backend import AnswerStream, Backend, Counted, Ending, FinishReason, Sampling
from llmjobs.chat.errors import AnswerError, UnavailableError
from llmjobs.chat.messages import Message
from llmjobs.chat.room import drain
from llmjobs.mtbench.calls import Call, CallJournal, call_key
from llmjobs.mtbench.limits import MinuteLimit, Spending


class PaidBackend:
    """One conversation with an endpoint. ``label`` tells its calls from those of any other conversation."""

    def __init__(
        self,
        inner: Backend,
        label: str,
        journal: CallJournal,
        *,
        account: str,
        spending: Spending,
        minute: MinuteLimit,
    ) -> None:
        """``account`` is the name under which prices are given; nothing is sent before :meth:`answer`."""
        self.inner, self.label, self.name, self.account = inner, label, inner.name, account
        self._journal, self._spending, self._minute = journal, spending, minute
        self._calls = 0
        self._seed = 0

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
            UnavailableError: nothing came; nothing is kept, so it is asked again another time.
            AnswerError: what came is no answer; kept.
            SpendingLimitError: the call could pass a limit.

        """
        self._calls += 1
        request = {"label": self.label, "call": self._calls, "effective": self.effective, "seed": self._seed}
        key = call_key({**request, "messages": [m.to_builtin() for m in messages], "sampling": asdict(sampling)})
        call = self._journal.find(key) or self._make(key, messages, sampling)
        if call.get("error") is not None:
            raise AnswerError(str(call["error"]))
        yield str(call["text"])
        ending = cast(FinishReason, call["finish_reason"]), int(call["prompt_tokens"]), int(call["new_tokens"])
        return Ending(*ending, counted=cast(Counted, call["counted"]))

    def _make(self, key: str, messages: Sequence[Message], sampling: Sampling) -> Call:
        tokens = self.count(messages)
        held = self._spending.hold(self.account, tokens, sampling.max_new_tokens)
        taken: tuple[int, int] | tuple[None, None] = (None, None)
        try:
            self._minute.wait(tokens + sampling.max_new_tokens)
            call: Call = {"name": self.account, "label": self.label}
            try:
                text, ending = drain(self.inner.answer(messages, sampling))
                call |= {"text": text, **_figures(ending)}
                if not text.strip():
                    call["error"] = f"{self.name}: the answer is empty"
            except UnavailableError:
                raise
            except AnswerError as error:
                call |= {"text": "", **_figures(Ending("interrupted", tokens, 0, counted="estimate"))}
                call["error"] = str(error)
            taken = (int(call["prompt_tokens"]), int(call["new_tokens"]))
            self._journal.add(key, call)
            return call
        finally:
            self._spending.settle(held, *taken)

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


def _figures(ending: Ending) -> dict[str, Any]:
    return {
        "finish_reason": ending.finish_reason,
        "prompt_tokens": ending.prompt_tokens,
        "new_tokens": ending.new_tokens,
        "counted": ending.counted,
    }
