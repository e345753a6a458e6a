"""What a failed request means, and how long to wait before it is sent again."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from llmjobs.chat.event_stream import NotCompletionError, StatusError, StreamedError, TooLargeError

TEMPORARY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
ABOUT_SERVER = TEMPORARY | {401, 402, 403, 404, 405}
LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """Waits 1, 2, 4 … seconds between tries, or what the server asks for, never over a minute."""

    attempts: int = 4
    first_wait_s: float = 1.0

    def wait_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Seconds before the try after ``attempt`` (from 0)."""
        wanted = self.first_wait_s * 2**attempt if retry_after_s is None else retry_after_s
        return min(max(wanted, 0.0), LONGEST_WAIT_S)


@dataclass(frozen=True)
class Failure:
    """Why a request gave no answer."""

    text: str
    remedy: str
    is_temporary: bool
    is_about_server: bool = True
    """The server would not do better with another question; off where it is this answer that failed."""
    retry_after_s: float | None = None


def classify(error: Exception, timeout_s: float) -> Failure:
    """Read an exception of the HTTP client or of the reading of its stream."""
    if isinstance(error, StatusError):
        return _by_status(error)
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return Failure(f"no answer within {timeout_s:g} s", "raise --timeout or look at the server", True)
    if isinstance(error, EOFError):
        return Failure("the stream ended before the answer did", "ask again", False, is_about_server=False)
    if isinstance(error, NotCompletionError):
        return Failure("the server sent something that is no chat completion", "check the URL", False, False)
    if isinstance(error, TooLargeError):
        return Failure(f"the server sent {error}, which is no chat completion", "check the URL", False, False)
    if isinstance(error, StreamedError):
        return Failure(f"the server says: {error}", "look at the server", False, False)
    name = type(error).__name__
    if name in ("RemoteProtocolError", "ReadError"):
        return Failure("the connection broke", "ask again or look at the server", True, is_about_server=False)
    if name in ("ConnectError", "ConnectionError", "WriteError"):
        return Failure("cannot be reached", "check the URL and that the server runs", True)
    return Failure(f"{name}: {error}", "look at the server", False, is_about_server=False)


def _by_status(error: StatusError) -> Failure:
    status = error.status
    text = f"the server answered {status}{f' ({error.said})' if error.said else ''}"
    remedies = {
        400: "the request was refused: fewer tokens may help",
        401: "check the key in the environment variable",
        403: "the key has no access",
        404: "check the URL and the model's name",
        429: "too many requests: wait, or ask for a higher limit",
    }
    return Failure(
        text,
        remedies.get(status, "try again later" if status in TEMPORARY else "look at the server's log"),
        status in TEMPORARY,
        is_about_server=status in ABOUT_SERVER,
        retry_after_s=retry_after_s(error.headers.get("retry-after")),
    )


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for: a number, or a date; None where there is none to read."""
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
