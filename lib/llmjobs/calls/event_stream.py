"""One completion over HTTP, limited in time and size, so a server can neither block us nor fill the memory.

httpx2 reads streams of server-sent events. A server that ignores ``stream`` and sends one JSON body is read too,
whatever content type it claims. We do not ask for compression and do not decompress, so a small response cannot become
a large one. Redirects are not followed, so the key goes only to the given address.
"""

import codecs
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx2

MAX_EVENT_BYTES = 1 << 20
MAX_BYTES = 1 << 26
MAX_ERROR_BYTES = 1 << 16
DONE = "[DONE]"


class StatusError(Exception):
    """The server answered with an error status."""

    def __init__(self, status: int, headers: Mapping[str, str], body: str) -> None:
        """``body`` is the error as the server sent it; empty if it is too large."""
        super().__init__(f"status {status}")
        self.status, self.headers, self.body = status, headers, body

    @property
    def said(self) -> str:
        """The readable message in the body: in OpenAI's form, in FastAPI's, or plain text; empty if there is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return "" if self.body.lstrip().startswith("<") else self.body.strip()[:300]
        error = value.get("error", value) if isinstance(value, dict) else value
        found = error
        if isinstance(error, dict):
            found = next((error[key] for key in ("message", "detail", "error") if error.get(key)), "")
        return (found if isinstance(found, str) else json.dumps(found)).strip()


class TooLargeError(Exception):
    """An event, or the whole answer, is larger than any chat completion."""


class NotCompletionError(Exception):
    """The response is not a chat completion; the text says what it is."""


class WebPageError(NotCompletionError):
    """The response is a web page: from a proxy, a login, or an address that is not an API's."""


class StreamedError(Exception):
    """The server sent an error in place of an answer."""


class TooSlowError(Exception):
    """The server sent no text for too long, or its whole answer takes too long; the text says which."""


CHAT, PLAIN, MODELS = "chat/completions", "completions", "models"
"""Ends of an API's addresses: chat completions, plain completions, and the list of models."""


def api_url(url: str, path: str = CHAT) -> str:
    """Complete an address as people give it: with or without ``/v1``, with or without the path of chat completions."""
    base = url.rstrip("/").removesuffix(f"/{CHAT}").rstrip("/")
    if base != url.rstrip("/"):
        return f"{base}/{path}"
    return f"{base}/{path}" if urlsplit(base).path.endswith("/v1") else f"{base}/v1/{path}"


class Watch:
    """Limits the time of one request: until the next piece of text, and in total.

    Comments, empty pieces and single bytes do not count as text, so a server cannot keep a request open with them.
    """

    def __init__(self, silence_s: float, answer_s: float) -> None:
        """Both limits start now."""
        self.silence_s, self.answer_s = silence_s, answer_s
        self._began = self._last = time.monotonic()

    def text_came(self) -> None:
        """Restart the time limit for silence."""
        self._last = time.monotonic()

    def check(self) -> None:
        """Check both limits.

        Raises:
            TooSlowError: one of the limits is reached.

        """
        now = time.monotonic()
        if now - self._began > self.answer_s:
            raise TooSlowError(f"the answer was not complete after {self.answer_s:g} s")
        if now - self._last > self.silence_s:
            raise TooSlowError(f"no answer within {self.silence_s:g} s")


class Completion:
    """The JSON objects of one response, in order: one per event, or the single body."""

    def __init__(self, response: httpx2.Response, watch: Watch) -> None:
        """Nothing is read before the iteration."""
        self._response, self.watch = response, watch
        self.is_done = False
        """The server said that nothing more follows."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the objects.

        Raises:
            TooLargeError, NotCompletionError, StreamedError, TooSlowError, and errors of the HTTP client.

        """
        body = _BoundedBody(self._response.stream, self.watch)
        self._response.stream = body
        first = body.peek()
        if first == b"<":
            raise WebPageError("a web page")
        if not first:
            raise NotCompletionError("nothing")
        yield from self._one() if first in (b"{", b"[") else self._events()

    def _one(self) -> Iterator[dict[str, Any]]:
        text = b"".join(self._response.iter_raw())
        value = _object(text, "a body that is not a JSON object")
        self.is_done = True
        yield value

    def _events(self) -> Iterator[dict[str, Any]]:
        self._response.headers["content-type"] = "text/event-stream; charset=utf-8"
        try:
            for event in httpx2.EventSource(self._response, max_event_size=MAX_EVENT_BYTES):
                for data in _parts(event.data):
                    if data == DONE:
                        self.is_done = True
                        return
                    value = _object(data, "an event that is not a JSON object")
                    if event.event == "error":
                        raise StreamedError(str(value.get("message") or value))
                    yield value
        except httpx2.SSEError:
            raise TooLargeError(f"an event of more than {MAX_EVENT_BYTES >> 20} MiB") from None


@contextmanager
def open_completion(
    url: str, key: str, payload: Mapping[str, Any] | None, *, silence_s: float, answer_s: float
) -> Iterator[Completion]:
    """Send a request (without a ``payload``, a GET) and wait for the headers of its answer.

    ``silence_s`` is the longest time without text, ``answer_s`` the longest total time.

    Raises:
        StatusError, NotCompletionError, TooSlowError, and errors of the HTTP client.

    """
    headers = {"authorization": f"Bearer {key}", "accept": "text/event-stream", "accept-encoding": "identity"}
    watch = Watch(silence_s, answer_s)
    with httpx2.Client(timeout=silence_s, follow_redirects=False, verify=_certificates()) as client:
        method, body = ("GET", None) if payload is None else ("POST", dict(payload))
        request = client.build_request(method, url, json=body, headers=headers)
        with _headers_in_time(client, watch):
            response = client.send(request, stream=True)
        try:
            if response.status_code != 200:
                raise StatusError(response.status_code, dict(response.headers), _error_body(response, watch))
            if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
                raise NotCompletionError("a compressed response (llmjobs had asked for none)")
            yield Completion(response, watch)
        finally:
            response.close()


@cache
def _certificates() -> ssl.SSLContext:
    """The certificates to trust, read once, because reading them takes as long as a short answer."""
    return httpx2.create_ssl_context()


@contextmanager
def _headers_in_time(client: httpx2.Client, watch: Watch) -> Iterator[None]:
    """Close the client if headers arrive byte by byte: each byte may be in time while all of them are not."""
    passed: list[bool] = []

    def end() -> None:
        passed.append(True)
        client.close()

    timer = threading.Timer(min(watch.silence_s, watch.answer_s), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if passed:
            watch.check()
            raise TooSlowError(f"no answer within {watch.silence_s:g} s") from None
        raise
    finally:
        timer.cancel()


class _BoundedBody(httpx2.SyncByteStream):
    """A UTF-8 body limited in time and size; it always ends with a blank line."""

    def __init__(self, inner: Any, watch: Watch) -> None:
        self._inner, self._head = inner, b""
        self._chunks = self._checked(watch)

    def _checked(self, watch: Watch) -> Iterator[bytes]:
        total, utf8 = 0, codecs.getincrementaldecoder("utf-8")()
        for chunk in self._inner:
            watch.check()
            total += len(chunk)
            if total > MAX_BYTES:
                raise TooLargeError(f"more than {MAX_BYTES >> 20} MiB")
            try:
                utf8.decode(chunk)
            except UnicodeDecodeError:
                raise NotCompletionError("bytes that are not UTF-8") from None
            yield chunk
        yield b"\n\n"  # the last event may lack its end

    def peek(self) -> bytes:
        """The first byte that is not white space; empty at the end."""
        while not self._head.strip().removeprefix(codecs.BOM_UTF8):
            if (chunk := next(self._chunks, None)) is None:
                return b""
            self._head += chunk
        return self._head.strip().removeprefix(codecs.BOM_UTF8)[:1]

    def __iter__(self) -> Iterator[bytes]:
        if self._head:
            yield self._head
        yield from self._chunks

    def close(self) -> None:
        self._inner.close()


def _parts(data: str) -> list[str]:
    """The data of one event: one object, or several if the server leaves out the blank lines between events."""
    lines = [line.strip() for line in data.split("\n") if line.strip()]
    if len(lines) > 1:
        try:
            json.loads(data)
        except (ValueError, RecursionError):
            return lines
        return [data]
    return lines


def _object(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise NotCompletionError(what) from None
    if not isinstance(value, dict):
        raise NotCompletionError(what)
    if error := value.get("error"):
        raise StreamedError(str(error.get("message") or error) if isinstance(error, dict) else str(error))
    return value


def _error_body(response: httpx2.Response, watch: Watch) -> str:
    """The body of an error; empty if it is larger than :data:`MAX_ERROR_BYTES`."""
    body = bytearray()
    try:
        for chunk in response.iter_raw():
            watch.check()
            body += chunk
            if len(body) > MAX_ERROR_BYTES:
                return ""
    except (httpx2.HTTPError, httpx2.StreamError, TooSlowError):
        return ""
    return body.decode(errors="replace")
