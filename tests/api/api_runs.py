"""A run in many small steps, and something to do once so many of its records are there."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STUDY = "smoke"
OVERRIDES = ["models=[llmjobs/demo-tiny]", "eval.benchmarks[0].limit=15"]


def records_of(results: Path) -> dict[str, bytes]:
    return {str(path.relative_to(results)): path.read_bytes() for path in sorted(results.rglob("records.jsonl"))}


def count(results: Path) -> int:
    return sum(content.count(b"\n") for content in records_of(results).values())


@contextmanager
def once_there_are(records: int, results: Path, act: Callable[[], object]) -> Iterator[None]:
    """Call ``act`` in another thread once ``results`` has this many records."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            if count(results) >= records:
                return act() and None

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def wait_for(records: int, results: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while count(results) < records:
        assert time.monotonic() < end, f"no {records} records after {seconds} s"
        time.sleep(0.01)
