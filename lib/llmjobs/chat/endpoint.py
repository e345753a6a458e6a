"""Any OpenAI-compatible server as a chat backend."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmjobs.calls.answer import Answer
from llmjobs.calls.endpoint import Endpoint, EndpointAddress, WholeAnswers
from llmjobs.calls.parameters import Parameters
from llmjobs.calls.retry import RetryPolicy
from llmjobs.calls.spending import BYTES_A_TOKEN
from llmjobs.chat.backend import AnswerStream, Ending, FinishReason, Sampling
from llmjobs.chat.messages import Message

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
        """As :class:`Endpoint`; with ``whole``, answers are passed on only when they are whole."""
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
            UnavailableError: the server cannot be used; another request would do no better.
            ContextFullError: the server says that the prompt does not fit.
            CallError: this request gave no answer.

        """
        wanted = self._request(messages, sampling)
        answer = yield from self.endpoint.stream(wanted, Answer, whole=self.whole, may_be_empty=not self.whole)
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
        return Ending(reason, self.count(messages), answer.pieces_count, counted="estimate")

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
