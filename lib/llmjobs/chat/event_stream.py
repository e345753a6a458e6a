"""One streamed chat completion over HTTP, bounded in time and size: nothing that a server sends can hang or fill us.

Compression is not asked for and not undone, so what arrives is what there is; a redirect is not followed, so the key
goes to the address that was given and nowhere else.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

MAX_LINE_BYTES = 1 << 20
MAX_BYTES = 1 << 26
MAX_ERROR_BYTES = 1 << 16
DONE = "[DONE]"


class StatusError(Exception):
    """The server answered with a status that is no success."""

    def __init__(self, status: int, headers: Mapping[str, str], said: str) -> None:
        """``said`` is the message in an error of OpenAI's form, empty where there is none."""
        super().__init__(f"status {status}")
        self.status, self.headers, self.said = status, headers, said


class TooLargeError(Exception):
    """A line or the whole answer is larger than any chat completion."""


class NotCompletionError(Exception):
    """What came is no chat completion."""


class StreamedError(Exception):
    """The server sent an error in the middle of its stream."""


def completions_url(url: str) -> str:
    """Complete an address as people give it: with or without ``/v1``, with or without the whole path."""
    url = url.rstrip("/")
    if url.endswith("/chat/completions"):
        return url
    return f"{url}/chat/completions" if urlsplit(url).path.endswith("/v1") else f"{url}/v1/chat/completions"


@contextmanager
def open_stream(
    url: str, key: str, payload: Mapping[str, Any], *, timeout_s: float, deadline_s: float
) -> Iterator[Iterator[dict[str, Any]]]:
    """Send a request; yields its events. ``timeout_s`` is the longest silence, ``deadline_s`` the longest answer.

    Raises:
        StatusError, TooLargeError, NotCompletionError, StreamedError, TimeoutError: and the HTTP client's own errors.

    """
    headers = {"authorization": f"Bearer {key}", "accept": "text/event-stream", "accept-encoding": "identity"}
    with _client_class()(timeout=timeout_s, follow_redirects=False) as client:
        over = _Deadline(client, deadline_s)
        try:
            with over, client.stream("POST", completions_url(url), json=dict(payload), headers=headers) as response:
                if response.status_code != 200:
                    raise StatusError(response.status_code, dict(response.headers), _said(response))
                if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
                    raise NotCompletionError("compressed, which was not asked for")
                yield _events(over.watched(response.iter_raw()))
        except (StatusError, TooLargeError, NotCompletionError, StreamedError, GeneratorExit):
            raise
        except Exception:
            if over.passed:
                raise TimeoutError from None
            raise


class _Deadline:
    """Closes the client when an answer takes too long, also where bytes drip in and no silence is long enough."""

    def __init__(self, client: Any, seconds: float) -> None:
        self.passed = False
        self._client = client
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def _end(self) -> None:
        self.passed = True
        self._client.close()

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def watched(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self.passed:
                raise TimeoutError
            yield chunk


def _client_class() -> Any:
    """Return the class of the HTTP client that the hub's client brings along, whatever it is called by now."""
    from huggingface_hub import get_session

    return next(base for base in type(get_session()).__mro__ if base.__name__ == "Client")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut into lines; the last one may have no end."""
    buffer = bytearray()
    total = 0
    for chunk in chunks:
        looked, total = len(buffer), total + len(chunk)
        buffer += chunk
        if total > MAX_BYTES:
            raise TooLargeError(f"more than {MAX_BYTES >> 20} MiB")
        while (end := buffer.find(b"\n", looked)) >= 0:
            yield bytes(buffer[:end])
            del buffer[: end + 1]
            looked = 0
        if len(buffer) > MAX_LINE_BYTES:
            raise TooLargeError(f"a line of more than {MAX_LINE_BYTES >> 20} MiB")
    yield bytes(buffer)


def _events(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the objects of the ``data:`` lines until ``[DONE]``."""
    for line in _lines(chunks):
        if not line.startswith(b"data:"):
            continue
        try:
            text = line[5:].decode().strip()
            if text == DONE:
                return
            event = json.loads(text)
        except (ValueError, RecursionError):
            raise NotCompletionError("a line that is no JSON") from None
        if not isinstance(event, dict):
            raise NotCompletionError("an event that is no object")
        if error := event.get("error"):
            raise StreamedError(str(error.get("message", error) if isinstance(error, dict) else error))
        yield event


def _said(response: Any) -> str:
    """Return the message in an error of OpenAI's form, of what fits into :data:`MAX_ERROR_BYTES`."""
    body = bytearray()
    try:
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > MAX_ERROR_BYTES:
                return ""
        return str(json.loads(bytes(body))["error"]["message"]).strip()
    except Exception:
        return ""
