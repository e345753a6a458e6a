"""How many requests the server takes on: one is answered, a few wait, the rest are sent away."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from llmjobs.chat.server_request import RefusedError


@dataclass(frozen=True)
class Limits:
    """What the server takes on."""

    waiting: int = 8
    """Requests that may wait for the one that is answered."""
    requests_per_minute: int = 0
    """0: no such limit."""
    connections: int = 64
    """Open connections; further ones get a 503."""
    request_s: float = 20.0
    """Longest time in which a request, its body included, must have come."""
    unread_s: float = 30.0
    """Longest time for which a client may leave its answer unread."""


@dataclass
class Gate:
    """Lets one request in at a time, a few wait, the rest are sent away."""

    limits: Limits
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _inside: int = 0
    _began: deque[float] = field(default_factory=deque)

    def enter(self) -> None:
        """Count a request in.

        Raises:
            RefusedError: 429 with the seconds to wait.

        """
        now = time.monotonic()
        while self._began and now - self._began[0] >= 60:
            self._began.popleft()
        if self.limits.requests_per_minute and len(self._began) >= self.limits.requests_per_minute:
            raise RefusedError(429, "too many requests a minute", int(60 - (now - self._began[0])) + 1)
        if self._inside > self.limits.waiting:
            raise RefusedError(429, "too many requests wait", 1)
        self._began.append(now)
        self._inside += 1

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the model; counts the request out at the end."""
        try:
            async with self._lock:
                yield
        finally:
            self._inside -= 1
