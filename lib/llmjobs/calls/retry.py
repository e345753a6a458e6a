"""Which failed requests are sent again, and after how long. One policy serves every endpoint."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

from llmjobs.calls.event_stream import (
    NotCompletionError,
    StatusError,
    StreamedError,
    TooLargeError,
    TooSlowError,
    WebPageError,
)
from llmjobs.errors import plain_reason

TEMPORARY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
ABOUT_SERVER = frozenset({401, 402, 403, 404, 405, 429})
LONGEST_WAIT_S = 60.0
_CONTEXT_FULL = re.compile(r"context (length|window|size)|context_length_exceeded|maximum model length", re.IGNORECASE)


@dataclass(frozen=True)
class RetryPolicy:
    """Waits 1, 2, 4 … seconds between tries, or as long as the server asks for, but never more than a minute."""

    attempts: int = 4
    first_wait_s: float = 1.0

    def wait_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Seconds to wait after ``attempt`` (counted from 0)."""
        wanted = self.first_wait_s * 2**attempt if retry_after_s is None else retry_after_s
        return min(max(wanted, 0.0), LONGEST_WAIT_S)

    def tries_again(self, attempt: int, failure: "Failure") -> bool:
        """Whether to send the request again. Not if the server asks for a longer wait than we allow."""
        is_too_long = failure.retry_after_s is not None and failure.retry_after_s > LONGEST_WAIT_S
        return failure.is_temporary and attempt + 1 < self.attempts and not is_too_long


@dataclass(frozen=True)
class Failure:
    """Why a request gave no answer."""

    text: str
    remedy: str
    is_temporary: bool
    """Another try may succeed."""
    is_about_server: bool = False
    """The server would refuse any other question too."""
    may_cost: bool = True
    """The server may have begun to answer, and may charge for it."""
    retry_after_s: float | None = None
    is_context_full: bool = False
    """The prompt does not fit: this depends on the model, not on the moment."""


class CutAnswerError(Exception):
    """The stream ended before the answer did."""


class FilteredError(Exception):
    """The server's content filter stopped the answer."""


class GivenUpError(Exception):
    """The server gave up in the middle of the answer; the exception's text is the reason that it gave."""


_OF_ANSWERS: tuple[tuple[type[Exception], str, str, bool], ...] = (
    (CutAnswerError, "the stream ended before the answer did", "try again", True),
    (FilteredError, "the server's content filter stopped the answer", "rephrase the question", False),
    (GivenUpError, "the server gave up on the answer (finish_reason: {})", "try again or check the server's log", True),
    (NotCompletionError, "the server sent {} instead of a chat completion", "check the URL", True),
    (TooLargeError, "the server sent {} instead of a chat completion", "check the URL", False),
    (StreamedError, "the server reports: {}", "check the server", True),
)
"""Faults of an answer: the exception, the text, the remedy, whether another try may succeed."""


def classify(error: Exception, timeout_s: float, *, has_begun: bool = False) -> Failure:
    """Classify an exception of the HTTP client or of reading its stream; ``has_begun``: some text had arrived."""
    if isinstance(error, StatusError):
        return _by_status(error)
    if isinstance(error, TooSlowError | httpx2.TimeoutException):
        text = str(error) if isinstance(error, TooSlowError) else f"no answer within {timeout_s:g} s"
        is_unsent = isinstance(error, httpx2.ConnectTimeout | httpx2.PoolTimeout)
        return Failure(text, "raise the timeout or check the server", True, not has_begun, not is_unsent)
    if isinstance(error, httpx2.ConnectError | httpx2.ProxyError):
        return Failure("cannot be reached", "check the URL, and that the server is running", True, True, may_cost=False)
    if isinstance(error, httpx2.TransportError | httpx2.StreamError):
        return Failure("the connection broke", "try again or check the server", True)
    for kind, text, remedy, is_temporary in _OF_ANSWERS:
        if isinstance(error, kind):
            may_cost = not isinstance(error, WebPageError)
            return Failure(text.format(error), "try again" if has_begun else remedy, is_temporary, may_cost=may_cost)
    if isinstance(error, httpx2.InvalidURL):
        return Failure(f"the address is not valid ({error})", "correct the URL", False, True, may_cost=False)
    return Failure(plain_reason(error), "check the server", False)


def _by_status(error: StatusError) -> Failure:
    status = error.status
    wait_s = retry_after_s(error.headers.get("retry-after"))
    if 300 <= status < 400:
        elsewhere = error.headers.get("location", "").split("?")[0][:200]
        to = f" with a redirect to {elsewhere}" if elsewhere else ""
        remedy = "llmjobs does not follow redirects, to keep the key safe; use the final address"
        return Failure(f"the server answered {status}{to}", remedy, False, is_about_server=True, may_cost=False)
    remedies = {
        400: "the server refused this request",
        401: "check the key in the environment variable",
        403: "the key does not have access",
        404: "check the URL and the model's name",
        429: "too many requests; wait, or request a higher limit",
    }
    remedy = remedies.get(status, "try again later" if status in TEMPORARY else "check the server's log")
    if wait_s is not None and wait_s > LONGEST_WAIT_S:
        remedy = f"the server asks to wait {wait_s:,.0f} s; run the same command after that"
    is_full = status in (400, 413, 422) and bool(_CONTEXT_FULL.search(error.said))
    if is_full:
        remedy = "shorten it, lower max_new_tokens, or choose a strategy that drops turns"
    return Failure(
        f"the server answered {status}{f' ({error.said})' if error.said else ''}",
        remedy,
        status in TEMPORARY,
        is_about_server=status in ABOUT_SERVER,
        may_cost=False,
        retry_after_s=wait_s,
        is_context_full=is_full,
    )


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, as a number or a date; None if it cannot be read."""
    if not value:
        return None
    try:
        seconds = float(value)
        return None if math.isnan(seconds) else seconds
    except ValueError:
        pass
    try:
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
