"""One model on an OpenAI-compatible server: requests are sent, waited for and sent again by one rule for every job.

Calls can overlap in threads while their results are taken in order.
"""

import logging
import os
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from llmjobs.calls.event_stream import CHAT, StatusError, api_url
from llmjobs.calls.refused_parameters import Parameters
from llmjobs.calls.request import Answer
from llmjobs.calls.retry import Failure, RetryPolicy, classify
from llmjobs.errors import (
    CallError,
    ContextFullError,
    LlmjobsError,
    RefusedCallError,
    UnavailableError,
    printable,
)
from llmjobs.redaction import holds_secret, redacted

log = logging.getLogger(__name__)
AnyAnswer = TypeVar("AnyAnswer", bound=Answer)
NO_KEY = "none"
"""Sent if there is no key; never the person's hub token."""
ANSWER_TIMEOUTS = 10
"""A whole answer may take this many times the longest silence."""
LONG_WAIT_S = 5.0
"""A wait of this length before the next try is announced."""


@dataclass(frozen=True)
class EndpointAddress:
    """Where the server is and which of its models to use; of the key, only the variable's name."""

    url: str
    model: str
    api_key_env: str | None = None

    def key(self) -> str:
        """The key, read when needed and never stored.

        Raises:
            LlmjobsError: the variable is not set, or its value cannot be sent in a header.

        """
        if self.api_key_env is None:
            return NO_KEY
        holds_secret(self.api_key_env)
        found = os.environ.get(self.api_key_env, "").strip()
        if not found:
            raise LlmjobsError(
                f"{self.model}: the environment variable {self.api_key_env} is not set; set it to your API key"
            )
        if not (found.isascii() and found.isprintable() and " " not in found):
            raise LlmjobsError(
                f"{self.model}: {self.api_key_env} does not contain a valid key: it has a space, a line break or a "
                "non-ASCII character"
            )
        return found


@dataclass(frozen=True)
class Lost:
    """One request without an answer, and what it may have cost."""

    reason: str
    may_cost: bool
    prompt_tokens: int | None = None
    """As counted by the server; None if it did not."""
    new_tokens: int | None = None


@dataclass(frozen=True)
class WholeAnswers:
    """Answers are only passed on when they are complete, so that a cut one can be discarded and requested again."""

    before: Callable[[], None] = lambda: None
    """Called before each request."""
    lost: Callable[[Lost], None] = lambda _: None
    """Called after each request without an answer."""


class Endpoint:
    """Sends requests to one model of a server; safe for several threads."""

    def __init__(
        self,
        address: EndpointAddress,
        *,
        name: str | None = None,
        timeout_s: float = 120.0,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
        parameters: Parameters | None = None,
        warn: Callable[[str], None] = log.warning,
    ) -> None:
        """``timeout_s`` is the longest time without text; a whole answer may take ten times as long.

        ``parameters`` are shared by everything that calls one server.
        """
        if not address.url.startswith(("http://", "https://")):
            raise LlmjobsError(f"endpoint: {address.url[:80]!r} is not a URL; write http://host:port/v1")
        self.name = name or address.model
        self.address, self.timeout_s = address, timeout_s
        self.policy, self.parameters = policy or RetryPolicy(), parameters or Parameters()
        self._sleep, self._warn = sleep, warn

    @property
    def who(self) -> str:
        """Model and server, for messages; the address without its path, which may be private."""
        found = urlsplit(self.address.url)
        return f"{self.name} at {found.scheme}://{found.netloc.rpartition('@')[2]}"

    def stream(
        self,
        wanted: Mapping[str, Any],
        kind: type[AnyAnswer],
        *,
        whole: WholeAnswers | None = None,
        path: str = CHAT,
    ) -> Generator[str, None, AnyAnswer]:
        """Send the part of a request that this server accepts; yield text as it arrives, or with ``whole`` at the end.

        Raises:
            UnavailableError: the server cannot be used; other requests would fail too.
            ContextFullError: the server says that the prompt does not fit.
            CallError: this request gave no answer.

        """
        attempt = 0
        while True:
            if whole:
                whole.before()
            answer, passed_on = kind(wanted, self.parameters.apply(wanted)), False
            try:
                url, key, silence_s = api_url(self.address.url, path), self.address.key(), self.timeout_s
                for piece in answer.pieces(url, key, silence_s=silence_s, answer_s=ANSWER_TIMEOUTS * silence_s):
                    if not whole:
                        passed_on = passed_on or bool(piece)
                        yield piece
                answer.check()
                if whole:
                    yield answer.text
                return answer
            except LlmjobsError:
                raise
            except Exception as error:
                attempt += self._lost(error, answer, attempt, passed_on, whole)

    def ask(
        self,
        wanted: Mapping[str, Any],
        kind: type[AnyAnswer],
        whole: WholeAnswers | None = None,
        *,
        path: str = CHAT,
    ) -> AnyAnswer:
        """Send a request and wait for the whole answer; raises as :meth:`stream` does."""
        stream = self.stream(wanted, kind, whole=whole or WholeAnswers(), path=path)
        while True:
            try:
                next(stream)
            except StopIteration as ended:
                return ended.value  # type: ignore[no-any-return]

    def _lost(self, error: Exception, answer: Answer, attempt: int, passed_on: bool, whole: WholeAnswers | None) -> int:
        """After a try without an answer, wait until the next one; return 1 if this one counts as a try.

        Raises:
            LlmjobsError: there is no next try.

        """
        if self._learns(error, answer):
            return 0
        failure = classify(error, self.timeout_s, has_begun=bool(answer.text))
        if whole:
            whole.lost(Lost(self._line(failure), failure.may_cost, *answer.counts()))
        if passed_on or not self.policy.tries_again(attempt, failure):
            tries = f" after {attempt + 1} tries" if attempt else ""
            raise self._error(failure, passed_on, tries) from None
        self._wait(attempt, failure)
        return 1

    def _learns(self, error: Exception, answer: Answer) -> bool:
        """Whether the request is worth sending again without what the server refuses."""
        if not isinstance(error, StatusError):
            return False
        said = self.parameters.learn(error, answer.wanted, answer.sent)
        if said:
            self._warn(f"{self.who}: {said}")
        return said is not None

    def _wait(self, attempt: int, failure: Failure) -> None:
        wait_s = self.policy.wait_s(attempt, failure.retry_after_s)
        if wait_s >= LONG_WAIT_S:
            self._warn(f"{self._line(failure)}; trying again in {wait_s:.0f} s")
        self._sleep(wait_s)

    def _line(self, failure: Failure) -> str:
        return f"{self.who}: {printable(redacted(failure.text))[:300]}"

    def _error(self, failure: Failure, was_cut: bool, tries: str) -> LlmjobsError:
        text = printable(redacted(failure.text))[:300]
        if failure.is_context_full:
            return ContextFullError(f"{self.who}: {text}; {failure.remedy}")
        kind: type[CallError] = CallError if failure.is_temporary else RefusedCallError
        if failure.is_about_server:
            kind = UnavailableError
        kind = CallError if was_cut else kind
        cut = "the answer was cut off: " if was_cut else ""
        return kind(f"{self.who}: {cut}{text}{tries}; {failure.remedy}")


T = TypeVar("T")


class Lookahead(Generic[T]):
    """Computes ``work(i)`` for i from 0 to ``count`` - 1. With one worker, this thread computes each item on demand."""

    def __init__(self, work: Callable[[int], T], count: int, workers: int) -> None:
        """Nothing is computed before :meth:`result`."""
        self._work, self._count, self._workers = work, count, workers
        self._pool = ThreadPoolExecutor(workers, "calls") if workers > 1 else None
        self._running: dict[int, Future[T]] = {}
        self._next: int | None = None

    def result(self, index: int) -> T:
        """Return item ``index``; items must be taken in order, starting anywhere."""
        if self._pool is None:
            return self._work(index)
        if self._next is None:
            self._next = index
        while self._next < min(self._count, index + self._workers):
            self._running[self._next] = self._pool.submit(self._work, self._next)
            self._next += 1
        return self._running.pop(index).result()

    def close(self) -> None:
        """Wait for items in progress, because their calls are paid for, and start no more."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
