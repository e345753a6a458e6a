"""The agent behind an OpenAI-compatible API: one model, one answer at a time, the others wait in a short line."""

import hmac
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llmjobs.chat.answering import Answering
from llmjobs.chat.backend import Backend, Sampling
from llmjobs.chat.errors import ContextFullError, MessageTooLongError
from llmjobs.chat.messages import split
from llmjobs.chat.server_limits import Gate, Limits
from llmjobs.chat.server_request import ChatCompletion, Completion, RefusedError, error_body, parse
from llmjobs.chat.strategies import STRATEGIES
from llmjobs.errors import DataError, LlmjobsError, printable
from llmjobs.redaction import redacted

MAX_BODY_BYTES = 1 << 20
GONE = 499
"""The status, as other servers use it, of a request whose client is no longer there; nobody sees it."""
log = logging.getLogger(__name__)
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1", "testserver")


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
        """``key``: what requests must send; None lets everybody in."""
        self.backend, self.strategy, self.system = backend, strategy, system
        self.sampling, self.max_context = sampling or Sampling(), max_context
        self.gate, self._key = Gate(limits or Limits()), key

    def app(self, *, is_loopback: bool = True) -> Starlette:
        """The application; on loopback a foreign Host header is refused, so that no web page can reach it."""
        hosts = list(LOOPBACK) if is_loopback else ["*"]
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
        """That it runs."""
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        """The one model."""
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
        # the first piece decides: what is wrong with the request is said by a status, not in a stream that has begun
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
        return Answering(self.backend, STRATEGIES[self.strategy](), messages, sampling, self.max_context)

    async def _pieces(self, answering: Answering, asked: ChatCompletion, request: Request) -> AsyncGenerator[str, None]:
        """The answer's pieces, computed in a thread while the server goes on listening."""
        async with self.gate.turn():
            if await request.is_disconnected():
                raise RefusedError(GONE, "the client is gone")
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
                line = f"{type(error).__name__}: {printable(redacted(str(error)))[:300]}"
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
    """The first piece with text; an empty answer raises, as everywhere."""
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
