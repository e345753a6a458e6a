"""Any OpenAI-compatible server as a backend.

Nothing that is not a whole answer is taken for one: a stream that ends without saying why, a line that cannot be
read, an error in the middle. Before the first piece of text a request is sent again (see ``retry``); after it, never.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmjobs.chat.backend import AnswerStream, Ending, FinishReason, Sampling
from llmjobs.chat.errors import AnswerError, UnavailableError
from llmjobs.chat.event_stream import NotCompletionError, open_stream
from llmjobs.chat.messages import Message
from llmjobs.chat.retry import Failure, RetryPolicy, classify
from llmjobs.errors import LlmjobsError, printable
from llmjobs.redaction import holds_secret, redacted

BYTES_A_TOKEN = 3
TOKENS_A_MESSAGE = 6
NO_KEY = "none"
"""Sent where there is no key; never the person's hub token."""
ANSWER_TIMEOUTS = 10
"""A whole answer may take as many times the longest silence."""


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
    ) -> None:
        """``timeout_s`` is the longest silence; a whole answer may take ten times as long."""
        if not address.url.startswith(("http://", "https://")):
            raise LlmjobsError(f"endpoint: {address.url[:80]!r} is no URL; write http://host:port/v1")
        self.name = name or address.model
        self.address, self.timeout_s = address, timeout_s
        self.policy = policy or RetryPolicy()
        self._sleep = sleep
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
        """Stream an answer.

        Raises:
            UnavailableError: nothing came after the last try.
            AnswerError: what came is no answer.

        """
        for attempt in range(self.policy.attempts):
            has_begun = False
            answer = _Answer(self, messages)
            try:
                for piece in answer.pieces(sampling, self._seed):
                    has_begun = has_begun or bool(piece)
                    yield piece
                return answer.ending()
            except LlmjobsError:
                raise
            except Exception as error:
                failure = classify(error, self.timeout_s)
                if has_begun or not failure.is_temporary:
                    raise self._error(failure, has_begun) from None
                if attempt + 1 == self.policy.attempts:
                    raise self._error(failure, has_begun, f" after {attempt + 1} tries") from None
                self._sleep(self.policy.wait_s(attempt, failure.retry_after_s))
        raise AssertionError("unreachable: the last attempt returns or raises")

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

    def _error(self, failure: Failure, has_begun: bool, tries: str = "") -> AnswerError:
        text = printable(redacted(failure.text))[:300]
        kind = AnswerError if has_begun or not failure.is_about_server else UnavailableError
        cut = "the answer was cut off: " if has_begun else ""
        return kind(f"{self.name}: {cut}{text}{tries}; {failure.remedy}")


class _Answer:
    """One request's stream, read with suspicion."""

    def __init__(self, backend: EndpointBackend, messages: Sequence[Message]) -> None:
        self.backend, self.messages = backend, messages
        self.finish: str | None = None
        self.usage: Mapping[str, Any] = {}
        self.count = 0

    def pieces(self, sampling: Sampling, seed: int) -> Iterator[str]:
        address, timeout_s = self.backend.address, self.backend.timeout_s
        payload: dict[str, Any] = {
            "messages": [message.to_builtin() for message in self.messages],
            "model": address.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "seed": seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if sampling.top_p < 1:
            payload["top_p"] = sampling.top_p
        if sampling.stop:
            payload["stop"] = list(sampling.stop)
        longest_s = ANSWER_TIMEOUTS * timeout_s
        key = address.key()
        with open_stream(address.url, key, payload, timeout_s=timeout_s, deadline_s=longest_s) as events:
            for event in events:
                yield self._piece(event)
        if self.finish is None:
            raise EOFError

    def _piece(self, event: Mapping[str, Any]) -> str:
        if isinstance(usage := event.get("usage"), dict):
            self.usage = usage
        choices = event.get("choices") or []
        if not isinstance(choices, list):
            raise NotCompletionError("choices that are no list")
        if not choices:
            return ""
        first = choices[0]
        delta = first.get("delta") if isinstance(first, dict) else None
        if not isinstance(delta, dict | None) or not isinstance(first, dict):
            raise NotCompletionError("a choice that is no object")
        finish, text = first.get("finish_reason"), (delta or {}).get("content") or ""
        if not isinstance(text, str) or not isinstance(finish, str | None):
            raise NotCompletionError("an answer that is no text")
        self.finish = finish or self.finish
        self.count += bool(text)
        return text

    def ending(self) -> Ending:
        reason: FinishReason = "length" if self.finish == "length" else "stop"
        if self.finish == "content_filter":
            raise AnswerError(f"{self.backend.name}: the server's content filter stopped the answer")
        prompt, new = _count(self.usage.get("prompt_tokens")), _count(self.usage.get("completion_tokens"))
        if prompt is not None and new is not None:
            return Ending(reason, prompt, new, counted="server")
        return Ending(reason, self.backend.count(self.messages), self.count, counted="estimate")


def _count(value: Any) -> int | None:
    """A server's count of tokens; None for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else None
