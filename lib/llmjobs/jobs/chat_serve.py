"""``llmjobs serve``: binds, says where, and serves until a signal."""

import os
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmjobs.chat.backend import Sampling
from llmjobs.chat.server_limits import Limits
from llmjobs.errors import EXIT_OK, LlmjobsError, MissingPackageError
from llmjobs.jobs.chat_backend import open_backend
from llmjobs.manifest.chat_section import ChatSection
from llmjobs.manifest.model_section import ModelSpec
from llmjobs.runner.signals import StopRequestedError

if TYPE_CHECKING:
    import uvicorn

    from llmjobs.chat.server import ChatServer

LOOPBACK = ("127.0.0.1", "::1", "localhost")


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
    is_loopback = request.host in LOOPBACK
    if not is_loopback and key is None:
        print(f"llmjobs: {request.host} accepts other machines and requires no key (--api-key-env)", file=sys.stderr)
    listener = _bind(request)
    backend = open_backend(spec, warn=lambda line: print(f"llmjobs: {line}", file=sys.stderr))
    try:
        backend.start(section.seed)
        sampling = Sampling(section.max_new_tokens + spec.thinking_tokens, section.temperature, section.top_p)
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
    except (KeyboardInterrupt, StopRequestedError):  # uvicorn raises the signal again once it has shut down
        pass
    finally:
        listener.close()
        backend.close()
    return EXIT_OK


def _server_class() -> "type[ChatServer]":
    try:
        import uvicorn  # noqa: F401

        from llmjobs.chat.server import ChatServer
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
    """How uvicorn serves: bounded connections, no access log, no header that names it."""
    import uvicorn

    from llmjobs.chat.server_connections import bounded

    # no log_config: its lines go through our own handler, which takes secrets out
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
        raise LlmjobsError(f"serve: the environment variable {variable} is not set; put the key in it")
    return key
