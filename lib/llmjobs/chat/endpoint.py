"""Any OpenAI-compatible server as a backend.

Nothing that is not a whole answer is taken for one: a stream that ends in the middle, a line that cannot be read, an
error where text should be. Such a request is sent again (see ``retry``) as long as nothing of its answer was passed
on; :class:`WholeAnswers` passes nothing on before the answer is whole.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmjobs.chat.backend import AnswerStream, Ending, FinishReason, Sampling
from llmjobs.chat.endpoint_answer import Answer
from llmjobs.chat.errors import CallError, ContextFullError, EmptyCallError, UnavailableError
from llmjobs.chat.event_stream import StatusError
from llmjobs.chat.messages import Message
from llmjobs.chat.parameters import Parameters
from llmjobs.chat.retry import EmptyAnswerError, Failure, RetryPolicy, classify
from llmjobs.errors import LlmjobsError, printable
from llmjobs.redaction import holds_secret, redacted

log = logging.getLogger(__name__)
BYTES_A_TOKEN = 3
TOKENS_A_MESSAGE = 6
NO_KEY = "none"
"""Sent where there is no key; never the person's hub token."""
ANSWER_TIMEOUTS = 10
"""A whole answer may take as many times the longest silence."""
LONG_WAIT_S = 5.0
"""A wait of this length before the next try is announced."""


@dataclass(frozen=True)
class EndpointAddress:
    """Where the server is and as what model it is asked; of the key only the variable's name."""

    url: str
    model: str
    api_key_env: str | None = None

    def key(self) -> str:
        """The key, read when it is needed and held nowhere.

        Raises:
            LlmjobsError: the variable is not set, or holds what no header can.

        """
        if self.api_key_env is None:
            return NO_KEY
        holds_secret(self.api_key_env)
        found = os.environ.get(self.api_key_env, "").strip()
        if not found:
            raise LlmjobsError(
                f"{self.model}: the environment variable {self.api_key_env} is not set; put the key in it"
            )
        if not (found.isascii() and found.isprintable() and " " not in found):
            raise LlmjobsError(
                f"{self.model}: what {self.api_key_env} holds is no key (a blank, line break or letter beyond ASCII)"
            )
        return found


@dataclass(frozen=True)
class Lost:
    """One request that gave no answer, and what it may have cost."""

    reason: str
    may_cost: bool
    prompt_tokens: int | None = None
    """As the server counted them; None where it did not."""
    new_tokens: int | None = None


@dataclass(frozen=True)
class WholeAnswers:
    """Answers are passed on only when they are whole, so that a cut one is thrown away and asked again."""

    before: Callable[[], None] = lambda: None
    """Called before each request."""
    lost: Callable[[Lost], None] = lambda _: None
    """Called after each request that gave no answer."""


class EndpointBackend:
    """Answers by asking a server."""

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
        """``timeout_s`` is the longest time without text; a whole answer may take ten times as long.

        ``parameters`` are shared by all conversations with one server.
        """
        if not address.url.startswith(("http://", "https://")):
            raise LlmjobsError(f"endpoint: {address.url[:80]!r} is no URL; write http://host:port/v1")
        self.name = name or address.model
        self.address, self.timeout_s = address, timeout_s
        self.policy, self.parameters, self.whole = policy or RetryPolicy(), parameters or Parameters(), whole
        self._sleep, self._warn = sleep, warn
        self._seed = 0

    limit: int | None = None

    @property
    def effective(self) -> Mapping[str, Any]:
        """The model's name on the server; its address may hold what is not for records."""
        return {"endpoint_model": self.address.model}

    def count(self, messages: Sequence[Message]) -> int:
        """An estimate, on the high side: a token for three bytes, and six a message."""
        return sum(math.ceil(len(m.content.encode()) / BYTES_A_TOKEN) + TOKENS_A_MESSAGE for m in messages)

    def answer(self, messages: Sequence[Message], sampling: Sampling) -> AnswerStream:
        """Stream an answer, or pass it on whole.

        Raises:
            UnavailableError: the server cannot be used; another request would do no better.
            ContextFullError: the server says that the prompt does not fit.
            CallError: this request gave no answer.

        """
        whole, attempt = self.whole, 0
        while True:
            if whole:
                whole.before()
            answer, passed_on = self._request(messages, sampling), False
            try:
                url, key, silence_s = self.address.url, self.address.key(), self.timeout_s
                for piece in answer.pieces(url, key, silence_s=silence_s, answer_s=ANSWER_TIMEOUTS * silence_s):
                    if not whole:
                        passed_on = passed_on or bool(piece)
                        yield piece
                answer.check(may_be_empty=not whole)
                if whole:
                    yield answer.text
                return self._ending(answer, messages)
            except LlmjobsError:
                raise
            except Exception as error:
                attempt += self._lost(error, answer, attempt, passed_on)

    def _lost(self, error: Exception, answer: Answer, attempt: int, passed_on: bool) -> int:
        """After a try without an answer: wait until the next one; returns 1 where it counts as one.

        Raises:
            LlmjobsError: there is no next one.

        """
        if self._learns(error, answer):
            return 0
        failure = classify(error, self.timeout_s, has_begun=bool(answer.text))
        is_empty = isinstance(error, EmptyAnswerError)
        if self.whole:
            self.whole.lost(Lost(self._line(failure), failure.may_cost, *answer.counts()))
        if passed_on or not self.policy.tries_again(attempt, failure):
            tries = f" after {attempt + 1} tries" if attempt else ""
            raise self._error(failure, passed_on, tries, is_empty=is_empty) from None
        self._wait(attempt, failure)
        return 1

    def _request(self, messages: Sequence[Message], sampling: Sampling) -> Answer:
        payload: dict[str, Any] = {
            "messages": [message.to_builtin() for message in messages],
            "model": self.address.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "seed": self._seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if sampling.top_p < 1:
            payload["top_p"] = sampling.top_p
        if sampling.stop:
            payload["stop"] = list(sampling.stop)
        return Answer(payload, self.parameters.apply(payload))

    def _ending(self, answer: Answer, messages: Sequence[Message]) -> Ending:
        reason: FinishReason = "length" if answer.finish == "length" else "stop"
        prompt, new = answer.counts()
        if prompt is not None and new is not None:
            return Ending(reason, prompt, new, counted="server")
        return Ending(reason, self.count(messages), answer.pieces_count, counted="estimate")

    def _learns(self, error: Exception, answer: Answer) -> bool:
        """Whether the request is worth sending again without what the server refuses."""
        if not isinstance(error, StatusError):
            return False
        said = self.parameters.learn(error, answer.wanted, answer.sent)
        if said:
            self._warn(f"{self.name}: {said}")
        return said is not None

    def _wait(self, attempt: int, failure: Failure) -> None:
        wait_s = self.policy.wait_s(attempt, failure.retry_after_s)
        if wait_s >= LONG_WAIT_S:
            self._warn(f"{self._line(failure)}; trying again in {wait_s:.0f} s")
        self._sleep(wait_s)

    def start(self, seed: int) -> None:
        """The seed is sent with every request."""
        self._seed = seed

    reseed = start

    def state(self) -> Mapping[str, Any]:
        """The server keeps its own."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""

    def close(self) -> None:
        """Connections end with their requests."""

    def _line(self, failure: Failure) -> str:
        return f"{self.name}: {printable(redacted(failure.text))[:300]}"

    def _error(self, failure: Failure, was_cut: bool, tries: str, *, is_empty: bool) -> LlmjobsError:
        text = printable(redacted(failure.text))[:300]
        if failure.is_context_full:
            return ContextFullError(f"{self.name}: {text}; {failure.remedy}")
        kind = EmptyCallError if is_empty else UnavailableError if failure.is_about_server else CallError
        kind = CallError if was_cut else kind
        cut = "the answer was cut off: " if was_cut else ""
        return kind(f"{self.name}: {cut}{text}{tries}; {failure.remedy}")
