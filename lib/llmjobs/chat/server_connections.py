"""Connections of the chat server: a limited number at one time, and none that waits for a slow client without end."""

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from llmjobs.chat.server_limits import Limits

_SAYS = b'{"error": {"message": "too many connections", "type": "server_error", "code": 503}}'
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: " + str(len(_SAYS)).encode() + b"\r\n\r\n" + _SAYS
)


class BoundedConnection(H11Protocol):
    """uvicorn's protocol with a limit on connections, on the time of a request, and on that of an unread answer."""

    limits: ClassVar[Limits] = Limits()
    _timer: asyncio.TimerHandle | None = None
    _is_refused = False

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or refuse it where there are too many."""
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
        """Forget the connection."""
        self._stop()
        if not self._is_refused:
            super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Give the next request its time."""
        super().on_response_complete()
        self._within(self.limits.request_s)

    def pause_writing(self) -> None:
        """The client does not read: give it some time."""
        if not self._is_refused:
            super().pause_writing()
            self._within(self.limits.unread_s)

    def resume_writing(self) -> None:
        """The client reads again."""
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
        """Drop a client that has sent no whole request, or does not read; not one that waits for its answer."""
        cycle = self.cycle
        is_answered = cycle is not None and not cycle.response_complete and not cycle.more_body
        if not is_answered or self.flow.write_paused:
            self.transport.abort()


def bounded(limits: Limits) -> type[H11Protocol]:
    """The protocol with these limits."""
    return type("BoundedConnection", (BoundedConnection,), {"limits": limits})
