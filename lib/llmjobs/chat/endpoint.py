"""Any OpenAI-compatible server as a chat backend; parameters that it refuses are learned from its answers."""

import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from llmjobs.chat.backend import (
    AnswerStream,
    CallError,
    ContextFullError,
    EmptyCallError,
    Ending,
    FinishReason,
    Sampling,
    UnavailableError,
)
from llmjobs.chat.endpoint_retry import CutAnswerError, EmptyAnswerError, Failure, FilteredError, RetryPolicy, classify
from llmjobs.chat.event_stream import NotCompletionError, StatusError, open_completion
from llmjobs.chat.messages import Message
from llmjobs.errors import LlmjobsError, printable
from llmjobs.redaction import holds_secret, redacted

THINKING = ("reasoning_content", "reasoning")
"""Keys in which servers put a model's thinking; it keeps the connection alive but is not part of the answer."""


class Answer:
    """One request and its answer; nothing in the answer is trusted."""

    def __init__(self, wanted: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
        """``sent`` is the part of ``wanted`` that this server accepts."""
        self.wanted, self.sent = wanted, sent
        self.finish: str | None = None
        self.usage: Mapping[str, Any] = {}
        self.text = self._last = ""
        self.pieces_count = 0
        self.has_thinking = False

    def pieces(self, url: str, key: str, *, silence_s: float, answer_s: float) -> Iterator[str]:
        """Send the request; yield the answer's text in pieces, some of them empty.

        Raises:
            CutAnswerError: the stream ended early; also the errors of :mod:`llmjobs.chat.event_stream`.

        """
        with open_completion(url, key, self.sent, silence_s=silence_s, answer_s=answer_s) as completion:
            for event in completion:
                piece, had_thinking = self.take(event), self.has_thinking
                if piece or had_thinking:
                    completion.watch.text_came()
                self.text += piece
                self.pieces_count += bool(piece)
                yield piece
        if self.finish is None and not (completion.is_done and self.text):
            raise CutAnswerError

    def take(self, event: Mapping[str, Any]) -> str:
        """Read one event; return its text.

        Raises:
            NotCompletionError: the event does not belong to a chat completion.

        """
        self.has_thinking = False
        if isinstance(usage := event.get("usage"), dict):
            self.usage = usage
        choices = event.get("choices") or []
        if not isinstance(choices, list):
            raise NotCompletionError("choices that are not a list")
        if not choices:
            return ""
        first = choices[0]
        if not isinstance(first, dict):
            raise NotCompletionError("a choice that is not an object")
        message = first.get("delta") or first.get("message") or {}
        if not isinstance(message, dict):
            raise NotCompletionError("a choice that is not an object")
        finish = first.get("finish_reason")
        if not isinstance(finish, str | None):
            raise NotCompletionError("a finish reason that is not a text")
        had_ended = self.finish is not None
        self.finish = self.finish or finish or None
        self.has_thinking = any(isinstance(message.get(key), str) and message[key] for key in THINKING)
        piece = _text_of(message.get("content") or message.get("refusal") or "")
        if self._repeats(piece, is_whole=not first.get("delta"), had_ended=had_ended):
            return ""
        self._last = piece or self._last
        return piece

    def _repeats(self, piece: str, *, is_whole: bool, had_ended: bool) -> bool:
        """Whether a server repeats itself: its last event again, or the whole answer after its pieces."""
        return bool(self.text) and (
            (is_whole and piece == self.text) or (had_ended and piece in (self._last, self.text))
        )

    def check(self, *, may_be_empty: bool) -> None:
        """Refuse a response that ended without an answer.

        Raises:
            FilteredError: the server's content filter stopped it.
            EmptyAnswerError: it has no text.

        """
        if self.finish == "content_filter":
            raise FilteredError
        if not may_be_empty and not self.text.strip():
            why = ": all tokens were used for thinking; raise max_new_tokens" if self.finish == "length" else ""
            raise EmptyAnswerError(why)

    def counts(self) -> tuple[int | None, int | None]:
        """Tokens of prompt and answer, as counted by the server."""
        return _count(self.usage.get("prompt_tokens")), _count(self.usage.get("completion_tokens"))


def _text_of(content: Any) -> str:
    """The text itself, or joined from parts of the type ``text``, without the model's thinking."""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        content = "".join(str(part["text"]) for part in content if isinstance(part.get("text"), str))
    if not isinstance(content, str):
        raise NotCompletionError("an answer that is not a text")
    return content


def _count(value: Any) -> int | None:
    """A server's token count; None if it is not a valid count."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else None


# Which parameters a server accepts, learned from what it refuses.

LEFT_OUT = "left out"
REFUSALS = frozenset({400, 404, 405, 415, 422, 501})
OTHER_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
OPTIONAL = ("stream_options", "stream", "temperature", "top_p", "seed")
"""Parameters that may be left out. Not ``max_tokens``, which limits the cost, and not ``stop``, which changes the
answer.
"""
_ABOUT_LENGTH = re.compile(
    r"context (length|window|size)|too (large|long|many|high)|exceed|at most|maximum (value|of|number)|less than",
    re.IGNORECASE,
)
"""Matches a refused value of ``max_tokens``, as opposed to a refused name."""
_ABOUT_RANGE = re.compile(r"above|below|between|less than|greater than|range|<=|>=|at most|maximum", re.IGNORECASE)
_REFUSES = re.compile(r"not |n't|un(supported|known|recogni|expected)|extra|invalid|only|instead|must", re.IGNORECASE)


class Parameters:
    """The parameters that one server accepts; shared by all conversations with it, safe for several threads."""

    def __init__(self) -> None:
        """Everything is sent until something is refused."""
        self.changes: dict[str, str] = {}
        """Parameter → its other name, or :data:`LEFT_OUT`."""
        self._lock = threading.Lock()

    def apply(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The request in the form that this server accepts."""
        changes = dict(self.changes)
        return {changes.get(key, key): value for key, value in wanted.items() if changes.get(key) != LEFT_OUT}

    def learn(self, error: StatusError, wanted: Mapping[str, Any], sent: Mapping[str, Any]) -> str | None:
        """Read a refusal. Return a message if the request is worth sending again, otherwise None.

        The message is empty if another thread learned the same in the meantime.
        """
        if error.status not in REFUSALS:
            return None
        with self._lock:
            if self.apply(wanted) != sent:
                return ""
            name = _refused(error, sent)
            if name is None:
                return None
            if name in OTHER_NAMES:
                other = OTHER_NAMES[name]
                if name != "max_tokens":
                    return None
                self.changes[name] = other
                return f"the server does not accept {name!r}; sending {other!r} from now on"
            self.changes[name] = LEFT_OUT
            if name == "stream":
                self.changes["stream_options"] = LEFT_OUT
            effect = {"temperature": ", so the server chooses its own", "seed": ", so a repetition may differ"}
            return f"the server does not accept {name!r}; leaving it out from now on{effect.get(name, '')}"


def _refused(error: StatusError, sent: Mapping[str, Any]) -> str | None:
    """The parameter that was refused: the one that the error declares, otherwise the first that its message names."""
    said, declared = error.said, _declared(error.body)
    for name in (*OPTIONAL, "max_tokens", "max_completion_tokens"):
        if name not in sent or not (name in declared or (not declared and _names(name, said))):
            continue
        if name in OTHER_NAMES and _ABOUT_LENGTH.search(said):
            continue
        if name in ("temperature", "top_p") and sent[name] > 0 and _ABOUT_RANGE.search(said):
            continue
        return name
    return None


def _names(name: str, said: str) -> bool:
    """Whether a message refuses the parameter, rather than just using the word."""
    alone = {"stream_options": r"\bstream_options\b", "top_p": r"\btop_p\b", "max_tokens": r"\bmax_tokens\b"}
    word = alone.get(name, rf"[`'\"\[.]{name}[`'\"\]]|\b{name}:? (is |are |must |can|does )|: {name}\b|\w {name}$")
    return bool(re.search(word, said, re.IGNORECASE) and _REFUSES.search(said))


def _declared(body: str) -> set[str]:
    """Parameters that the error declares: ``param`` in OpenAI's form, ``loc`` in FastAPI's."""
    found: set[str] = set()

    def walk(value: Any, depth: int = 0) -> None:
        if depth > 8:
            return
        if isinstance(value, dict):
            if isinstance(value.get("param"), str):
                found.add(value["param"])
            if isinstance(value.get("loc"), list):
                found.update(str(part) for part in value["loc"])
            for inner in value.values():
                walk(inner, depth + 1)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, depth + 1)

    try:
        walk(json.loads(body))
    except (ValueError, RecursionError):
        return set()
    return found & {*OPTIONAL, *OTHER_NAMES}


log = logging.getLogger(__name__)
BYTES_A_TOKEN = 3
TOKENS_A_MESSAGE = 6
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
                f"{self.model}: the environment variable {self.api_key_env} is not set; set it to the key"
            )
        if not (found.isascii() and found.isprintable() and " " not in found):
            raise LlmjobsError(
                f"{self.model}: {self.api_key_env} does not contain a valid key: it has a space, a line break or a "
                "character outside of ASCII"
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
        """``timeout_s`` is the longest time without text; a whole answer may take ten times as long.

        ``parameters`` are shared by all conversations with one server.
        """
        if not address.url.startswith(("http://", "https://")):
            raise LlmjobsError(f"endpoint: {address.url[:80]!r} is not a URL; write http://host:port/v1")
        self.name = name or address.model
        self.address, self.timeout_s = address, timeout_s
        self.policy, self.parameters, self.whole = policy or RetryPolicy(), parameters or Parameters(), whole
        self._sleep, self._warn = sleep, warn
        self._seed = 0

    limit: int | None = None

    @property
    def _who(self) -> str:
        """Model and server, for messages; the address without its path, which may be private."""
        found = urlsplit(self.address.url)
        return f"{self.name} at {found.scheme}://{found.netloc.rpartition('@')[2]}"

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
            UnavailableError: the server cannot be used; other requests would fail too.
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
        """After a try without an answer, wait until the next one; return 1 if this one counts as a try.

        Raises:
            LlmjobsError: there is no next try.

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
            self._warn(f"{self._who}: {said}")
        return said is not None

    def _wait(self, attempt: int, failure: Failure) -> None:
        wait_s = self.policy.wait_s(attempt, failure.retry_after_s)
        if wait_s >= LONG_WAIT_S:
            self._warn(f"{self._line(failure)}; trying again in {wait_s:.0f} s")
        self._sleep(wait_s)

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

    def _line(self, failure: Failure) -> str:
        return f"{self._who}: {printable(redacted(failure.text))[:300]}"

    def _error(self, failure: Failure, was_cut: bool, tries: str, *, is_empty: bool) -> LlmjobsError:
        text = printable(redacted(failure.text))[:300]
        if failure.is_context_full:
            return ContextFullError(f"{self._who}: {text}; {failure.remedy}")
        kind = EmptyCallError if is_empty else UnavailableError if failure.is_about_server else CallError
        kind = CallError if was_cut else kind
        cut = "the answer was cut off: " if was_cut else ""
        return kind(f"{self._who}: {cut}{text}{tries}; {failure.remedy}")
