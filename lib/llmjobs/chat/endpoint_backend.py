"""Any OpenAI-compatible server as a chat backend; if a job pays for calls, they are journaled, limited and counted."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from llmjobs.calls.client import Endpoint, EndpointAddress, WholeAnswers
from llmjobs.calls.refused_parameters import Parameters
from llmjobs.calls.request import Answer
from llmjobs.calls.retry import RetryPolicy
from llmjobs.calls.spending import BYTES_A_TOKEN, MinuteLimit, PaidCalls, Spending, most_prompt_tokens
from llmjobs.chat.backend import AnswerStream, Backend, Counted, Ending, FinishReason, Sampling, drain
from llmjobs.chat.messages import Message
from llmjobs.clocks import DeviceClock
from llmjobs.work.call_journal import CallJournal, call_key

log = logging.getLogger(__name__)
TOKENS_A_MESSAGE = 6


class EndpointBackend:
    """Answers by calling a server."""

    def __init__(
        self,
        address: EndpointAddress,
        *,
        name: str | None = None,
        timeout_s: float = 120.0,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
        parameters: Parameters | None = None,
        whole: WholeAnswers | None = None,
        warn: Callable[[str], None] = log.warning,
    ) -> None:
        """As :class:`Endpoint`; with ``whole``, answers are passed on only when they are complete."""
        self.endpoint = Endpoint(
            address, name=name, timeout_s=timeout_s, policy=policy, sleep=sleep, parameters=parameters, warn=warn
        )
        self.name, self.address, self.whole = self.endpoint.name, address, whole
        self.parameters = self.endpoint.parameters
        self._seed = 0

    limit: int | None = None

    @property
    def effective(self) -> Mapping[str, Any]:
        """The model's name on the server; its address may be private and is not recorded."""
        return {"endpoint_model": self.address.model}

    def clock(self) -> None:
        """None, because time on a server is not measured here."""

    def count(self, messages: Sequence[Message]) -> int:
        """An estimate that is rather too high: one token for three bytes, and six per message."""
        return sum(math.ceil(len(m.content.encode()) / BYTES_A_TOKEN) + TOKENS_A_MESSAGE for m in messages)

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> AnswerStream:
        """Stream an answer, or pass it on when complete.

        Raises:
            UnavailableError: the server cannot be used; another request would fail too.
            ContextFullError: the server says that the prompt does not fit.
            CallError: this request gave no answer.

        """
        wanted = self._request(messages, sampling)
        answer = yield from self.endpoint.stream(wanted, Answer, whole=self.whole)
        return self._ending(answer, messages)

    def _request(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "messages": [message.to_builtin() for message in messages],
            "model": self.address.model,
            "max_tokens": sampling.most_tokens,
            "temperature": sampling.temperature,
            "seed": self._seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if sampling.top_p < 1:
            payload["top_p"] = sampling.top_p
        if sampling.stop:
            payload["stop"] = list(sampling.stop)
        return payload

    def _ending(self, answer: Answer, messages: Sequence[Message]) -> Ending:
        reason: FinishReason = "length" if answer.finish == "length" else "stop"
        prompt, new = answer.counts()
        if prompt is not None and new is not None:
            return Ending(reason, prompt, new, counted="server")
        thinking = len(answer.thinking.encode()) if answer.thinking else None
        sent, new = self.count(messages), answer.pieces_count
        return Ending(reason, sent, new, counted="estimate", thinking_tokens=thinking)

    def start(self, seed: int) -> None:
        """Store the seed, which is sent with every request."""
        self._seed = seed

    reseed = start

    def state(self) -> Mapping[str, Any]:
        """Empty, because the server keeps its own state."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None: ...

    def close(self) -> None:
        """Do nothing, because connections end with their requests."""


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

        ``changes`` are the parameters that the server does not accept (see ``calls.parameters``).
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
            CallError: there is no answer; the reason is in the journal, and a later run repeats the call.
            SpendingLimitError: the call could exceed a limit.

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
            call: dict[str, Any] = {"text": text, "finish_reason": ending.finish_reason}
            call |= {"prompt_tokens": ending.prompt_tokens, "new_tokens": ending.new_tokens, "counted": ending.counted}
            if ending.counted != "server":
                seen = len(text.encode()) + (ending.thinking_tokens or 0)
                new = min(seen, sampling.most_tokens) if text.strip() else sampling.most_tokens
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
