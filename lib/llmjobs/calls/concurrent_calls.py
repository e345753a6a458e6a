"""Compute some items ahead in threads, so that calls to an endpoint overlap while results are taken in order."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Lookahead(Generic[T]):
    """Computes ``work(i)`` for i from 0 to ``count`` - 1. With one worker, this thread computes each item on demand."""

    def __init__(self, work: Callable[[int], T], count: int, workers: int) -> None:
        """Nothing is computed before :meth:`result`."""
        self._work, self._count, self._workers = work, count, workers
        self._pool = ThreadPoolExecutor(workers, "calls") if workers > 1 else None
        self._running: dict[int, Future[T]] = {}
        self._next: int | None = None

    def result(self, index: int) -> T:
        """Return item ``index``; items must be taken in order, starting anywhere."""
        if self._pool is None:
            return self._work(index)
        if self._next is None:
            self._next = index
        while self._next < min(self._count, index + self._workers):
            self._running[self._next] = self._pool.submit(self._work, self._next)
            self._next += 1
        return self._running.pop(index).result()

    def close(self) -> None:
        """Wait for items in progress, because their calls are paid for, and start no more."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
