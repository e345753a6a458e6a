"""``llmjobs serve``: the agent behind an OpenAI-compatible API. It answers one request at a time; a few wait."""

import asyncio
import contextlib
import hmac
import json
import logging
import os
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from llmjobs.chat.agent import Answering, Reply
from llmjobs.chat.backend import Backend, MessageTooLongError, Sampling
from llmjobs.chat.messages import Message, read_messages, split
from llmjobs.chat.open_backend import open_backend
from llmjobs.chat.strategies import make_strategy
from llmjobs.errors import ContextFullError, DataError, LlmjobsError, MissingPackageError, plain_reason
from llmjobs.exit_codes import EXIT_OK
from llmjobs.manifest.chat import ChatSection
from llmjobs.manifest.models import ModelSpec
from llmjobs.work.signals import StopRequestedError

if TYPE_CHECKING:
    import uvicorn


# Chat completion requests, and the answers in OpenAI's form.


class RefusedError(LlmjobsError):
    """A request that is refused, with its HTTP status."""

    def __init__(self, status: int, message: str, retry_after_s: int | None = None) -> None:
        """``retry_after_s`` is sent in the header of that name."""
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s


class StreamOptions(BaseModel):
    """Additional parts of a stream."""

    include_usage: bool = False


class ChatCompletion(BaseModel):
    """The keys that are read; others are ignored, as other servers do."""

    model_config = ConfigDict(extra="ignore")

    model: str = ""
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=10_000)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    n: Literal[1] | None = 1

    def sampling(self, default: Sampling) -> Sampling:
        """The request's sampling; its limit covers thinking and answer, and never exceeds the server's."""
        wanted = self.max_completion_tokens or self.max_tokens or default.most_tokens
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            default.max_new_tokens,
            default.temperature if self.temperature is None else self.temperature,
            self.top_p or default.top_p,
            tuple(stop for stop in stops if stop)[:4],
            default.thinking_tokens,
        ).within(wanted)

    def conversation(self, system: str | None) -> list[Message]:
        """The messages, with the server's system message if the request has none."""
        found = read_messages([{**value, "content": _text(value.get("content"))} for value in self.messages])
        return [Message("system", system), *found] if system and found[0].role != "system" else found


def parse(body: bytes) -> ChatCompletion:
    """Read a request.

    Raises:
        RefusedError: 400, naming the key.

    """
    try:
        return ChatCompletion.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise RefusedError(400, f"{where}: {first['msg']}") from None


def _text(content: Any) -> Any:
    """The text itself, or joined from parts of the type ``text``."""
    if not isinstance(content, list):
        return content
    parts = [part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    return "".join(parts) if len(parts) == len(content) else None


class Completion:
    """The objects that answer one request."""

    def __init__(self, model: str) -> None:
        self.head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, reply: Reply) -> dict[str, Any]:
        """The answer in one object."""
        message = {"role": "assistant", "content": reply.text}
        choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason, "logprobs": None}
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": usage(reply)}

    def chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """One piece of a stream."""
        choice = {"index": 0, "delta": dict(delta), "finish_reason": finish_reason, "logprobs": None}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice]}

    def usage_chunk(self, reply: Reply) -> dict[str, Any]:
        """The last piece of a stream, if the request asks for token counts."""
        return {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": usage(reply)}


def usage(reply: Reply) -> dict[str, Any]:
    """Tokens of prompt and answer; those of a summary count as prompt."""
    prompt = reply.prompt_tokens + reply.side_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": reply.new_tokens,
        "total_tokens": prompt + reply.new_tokens,
        "prompt_tokens_details": {"cached_tokens": reply.reused_tokens},
    }


def error_body(message: str, status: int) -> dict[str, Any]:
    """An error in OpenAI's format."""
    kind = "invalid_request_error" if 400 <= status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


# How many requests the server accepts: one is answered, a few wait, the rest are refused.


@dataclass(frozen=True)
class Limits:
    """Limits on requests and connections."""

    waiting: int = 8
    """Requests that may wait while another one is answered."""
    requests_per_minute: int = 0
    """0: no limit."""
    connections: int = 64
    """Open connections; further ones get a 503."""
    request_s: float = 20.0
    """Longest time for a whole request, including its body, to arrive."""
    unread_s: float = 30.0
    """Longest time for which a client may leave its answer unread."""


@dataclass
class Gate:
    """Lets one request in at a time; a few wait, the rest are refused."""

    limits: Limits
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _inside: int = 0
    _began: deque[float] = field(default_factory=deque)

    def enter(self) -> None:
        """Admit a request.

        Raises:
            RefusedError: 429 with the seconds to wait.

        """
        now = time.monotonic()
        while self._began and now - self._began[0] >= 60:
            self._began.popleft()
        if self.limits.requests_per_minute and len(self._began) >= self.limits.requests_per_minute:
            raise RefusedError(429, "too many requests per minute", int(60 - (now - self._began[0])) + 1)
        if self._inside > self.limits.waiting:
            raise RefusedError(429, "too many requests are waiting", 1)
        self._began.append(now)
        self._inside += 1

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the model, and release the request's place at the end."""
        try:
            async with self._lock:
                yield
        finally:
            self._inside -= 1


MAX_BODY_BYTES = 1 << 20
GONE = 499
"""The status of a request whose client has disconnected, as other servers use it; nobody sees it."""
log = logging.getLogger(__name__)
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]", "::1", "testserver")


class ChatServer:
    """Answers requests with a backend."""

    def __init__(
        self,
        backend: Backend,
        *,
        strategy: str = "full",
        system: str | None = None,
        sampling: Sampling | None = None,
        max_context: int | None = None,
        limits: Limits | None = None,
        key: str | None = None,
    ) -> None:
        """``key`` is what clients must send; None admits everybody."""
        self.backend, self.strategy, self.system = backend, strategy, system
        self.sampling, self.max_context = sampling or Sampling(), max_context
        self.gate, self._key = Gate(limits or Limits()), key

    def app(self, *, is_loopback: bool = True) -> Starlette:
        """The application. On loopback it refuses a foreign Host header, so no web page can reach it."""
        hosts = list(LOOPBACK_HOSTS) if is_loopback else ["*"]
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.completions, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/health", self.health),
            ],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
            exception_handlers={RefusedError: _refuse, ClientDisconnect: _gone},
        )

    async def health(self, _: Request) -> Response:
        """Answer that the server is running."""
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """List the one model."""
        self._check_key(request)
        entry = {"id": self.backend.name, "object": "model", "created": 0, "owned_by": "llmjobs"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def completions(self, request: Request) -> Response:
        """Answer a conversation, whole or as a stream."""
        self._check_key(request)
        asked = parse(await _body(request))
        if asked.model not in ("", self.backend.name):
            raise RefusedError(404, f"there is no model {asked.model[:100]!r} here; it is {self.backend.name!r}")
        answering = self._answering(asked)
        completion = Completion(self.backend.name)
        self.gate.enter()
        pieces = self._pieces(answering, asked, request)
        # wait for the first piece: an error in the request can then be reported by a status, not inside a stream
        first = await _first_text(pieces)
        if asked.stream:
            events = self._events(first, pieces, answering, asked, completion)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        async for _ in pieces:
            if await request.is_disconnected():
                await pieces.aclose()
                return Response(status_code=GONE)
        return JSONResponse(completion.whole(answering.reply()))

    def _answering(self, asked: ChatCompletion) -> Answering:
        try:
            messages = asked.conversation(self.system)
            split(messages)
        except DataError as error:
            raise RefusedError(400, str(error)) from None
        sampling = asked.sampling(self.sampling)
        return Answering(self.backend, make_strategy(self.strategy), messages, sampling, self.max_context)

    async def _pieces(self, answering: Answering, asked: ChatCompletion, request: Request) -> AsyncGenerator[str, None]:
        """The answer's pieces, computed in a thread while the server keeps listening."""
        async with self.gate.turn():
            if await request.is_disconnected():
                raise RefusedError(GONE, "the client disconnected")
            self.backend.reseed((asked.seed or 0) % 2**63)
            pieces: Iterator[str] = answering.pieces()
            try:
                while (piece := await run_in_threadpool(next, pieces, None)) is not None:
                    yield piece
            except (ContextFullError, MessageTooLongError) as error:
                raise RefusedError(400, str(error)) from None
            except LlmjobsError as error:
                raise RefusedError(500, str(error)) from None
            except Exception as error:
                line = plain_reason(error)
                log.error("%s: the answer failed: %s", self.backend.name, line)
                raise RefusedError(500, f"the answer failed: {line}") from None
            finally:
                pieces.close()  # type: ignore[attr-defined]

    async def _events(
        self,
        first: str,
        pieces: AsyncGenerator[str, None],
        answering: Answering,
        asked: ChatCompletion,
        completion: Completion,
    ) -> AsyncIterator[str]:
        yield _event(completion.chunk({"role": "assistant", "content": first}))
        try:
            async for piece in pieces:
                if piece:
                    yield _event(completion.chunk({"content": piece}))
        except RefusedError as error:
            yield _event(error_body(str(error), error.status))
            return
        finally:
            await pieces.aclose()
        reply = answering.reply()
        yield _event(completion.chunk({}, reply.finish_reason))
        if asked.stream_options and asked.stream_options.include_usage:
            yield _event(completion.usage_chunk(reply))
        yield "data: [DONE]\n\n"

    def _check_key(self, request: Request) -> None:
        said = request.headers.get("authorization", "")
        if self._key is not None and not hmac.compare_digest(said.encode(), f"Bearer {self._key}".encode()):
            raise RefusedError(401, "the key is missing or wrong")


async def _first_text(pieces: AsyncIterator[str]) -> str:
    """Return the first piece with text; an empty answer raises, as everywhere."""
    async for piece in pieces:
        if piece:
            return piece
    return ""


async def _body(request: Request) -> bytes:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "send application/json")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise RefusedError(413, f"the request is larger than {MAX_BODY_BYTES:,} bytes")
    return body


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None
    return JSONResponse(error_body(str(error), error.status), error.status, headers)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=GONE)


def _event(value: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


# Connections: their number is limited, and none may wait for a slow client forever.

_SAYS = b'{"error": {"message": "too many connections", "type": "server_error", "code": 503}}'
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: " + str(len(_SAYS)).encode() + b"\r\n\r\n" + _SAYS
)


class BoundedConnection(H11Protocol):
    """uvicorn's protocol with limits on connections, on the time of a request, and on unread answers."""

    limits: ClassVar[Limits] = Limits()
    _timer: asyncio.TimerHandle | None = None
    _is_refused = False

    def connection_made(self, transport: Any) -> None:
        """Accept the connection, or refuse it if there are too many."""
        if len(self.connections) >= self.limits.connections:
            self._is_refused = True
            transport.write(_BUSY)
            transport.close()
            return
        super().connection_made(transport)
        self._within(self.limits.request_s)

    def data_received(self, data: bytes) -> None:
        """Read on, unless the connection was refused."""
        if not self._is_refused:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        if not self._is_refused:
            super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Start the time limit of the next request."""
        super().on_response_complete()
        self._within(self.limits.request_s)

    def pause_writing(self) -> None:
        """Start a time limit, because the client does not read."""
        if not self._is_refused:
            super().pause_writing()
            self._within(self.limits.unread_s)

    def resume_writing(self) -> None:
        """Stop the time limit, because the client reads again."""
        if not self._is_refused:
            super().resume_writing()
            self._stop()

    def _within(self, seconds: float) -> None:
        self._stop()
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        """Drop a client that has not sent a whole request, or does not read. One that waits for its answer is kept."""
        cycle = self.cycle
        is_answered = cycle is not None and not cycle.response_complete and not cycle.more_body
        if not is_answered or self.flow.write_paused:
            self.transport.abort()


def bounded(limits: Limits) -> type[H11Protocol]:
    """Return the protocol with these limits."""
    return type("BoundedConnection", (BoundedConnection,), {"limits": limits})


LOOPBACK_ADDRESSES = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServeRequest:
    """Where to serve, and to whom."""

    host: str = "127.0.0.1"
    port: int = 8000
    limits: Limits = Limits()
    api_key_env: str | None = None


def serve(spec: ModelSpec, section: ChatSection, request: ServeRequest) -> int:
    """Load the model and answer requests until SIGINT or SIGTERM.

    Raises:
        LlmjobsError: the address is taken, or the key's variable is empty.

    """
    server_class = _server_class()
    key = _key(request.api_key_env)
    is_loopback = request.host in LOOPBACK_ADDRESSES
    if not is_loopback and key is None:
        line = f"{request.host} accepts connections from other machines without a key; set --api-key-env to require one"
        print(f"llmjobs: {line}", file=sys.stderr)
    listener = _bind(request)
    backend = open_backend(spec, warn=lambda line: print(f"llmjobs: {line}", file=sys.stderr))
    try:
        backend.start(section.seed)
        sampling = Sampling(
            section.max_new_tokens, section.temperature, section.top_p, thinking_tokens=spec.thinking_tokens
        )
        server = server_class(
            backend,
            strategy=section.strategy if section.history else "none",
            system=section.system,
            sampling=sampling,
            max_context=section.max_context,
            limits=request.limits,
            key=key,
        )
        _listen(server.app(is_loopback=is_loopback), listener, backend.name, request.limits)
    except (KeyboardInterrupt, StopRequestedError):  # uvicorn raises the signal again after it has shut down
        pass
    finally:
        listener.close()
        backend.close()
    return EXIT_OK


def _server_class() -> "type[ChatServer]":
    try:
        import uvicorn  # noqa: F401
    except ImportError:
        raise MissingPackageError("serve needs starlette and uvicorn: pip install 'llmjobs[serve]'") from None
    return ChatServer


def _listen(app: Any, listener: socket.socket, name: str, limits: Limits) -> None:
    import uvicorn

    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"{name} answers at http://{shown}:{port}/v1 (press Ctrl-C to stop)", flush=True)
    uvicorn.Server(server_config(app, limits)).run(sockets=[listener])


def server_config(app: Any, limits: Limits) -> "uvicorn.Config":
    """Settings for uvicorn: limited connections, no access log, no header that names the server."""
    import uvicorn

    # no log_config: uvicorn logs through our handler, which removes secrets
    return uvicorn.Config(
        app,
        http=bounded(limits),
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=5,
        server_header=False,
    )


def _bind(request: ServeRequest) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in request.host else socket.AF_INET
        return socket.create_server((request.host, request.port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LlmjobsError(f"serve: {request.host}:{request.port}: {reason}; choose another --port or --host") from None


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise LlmjobsError(f"serve: the environment variable {variable} is not set; set it to the API key")
    return key
