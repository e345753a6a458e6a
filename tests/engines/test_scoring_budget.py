from collections.abc import Iterator
from typing import Any

import pytest
import torch

from llmjobs.engines.transformers import budget
from llmjobs.engines.transformers.budget import measure_batch_tokens


def clock_of(times: dict[int, float], ran: list[int]) -> Any:
    """A clock that moves by what the last forward is said to cost."""
    now = 0.0
    seen = 0

    def clock() -> float:
        nonlocal now, seen
        now += sum(times[size] for size in ran[seen:])
        seen = len(ran)
        return now

    return clock


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    sizes: list[int] = []
    monkeypatch.setattr(budget, "_runner", lambda model, shared: sizes.append)
    yield sizes


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({256: 1.0, 512: 1.5, 1024: 2.5, 2048: 6.0}, 1024),
        ({256: 1.0, 512: 2.0, 1024: 4.0, 2048: 8.0}, 256),
        ({256: 1.0, 512: 1.9, 1024: 3.0, 2048: 5.0}, 2048),
    ],
)
def test_the_smallest_size_that_none_beats_is_taken(
    llama: Any, ran: list[int], times: dict[int, float], expected: int
) -> None:
    assert measure_batch_tokens(llama, seconds=1000, sizes=list(times), clock=clock_of(times, ran)) == expected


def test_the_search_ends_when_its_time_is_up(llama: Any, ran: list[int]) -> None:
    times = {256: 1.0, 512: 1.5, 1024: 2.5}
    assert measure_batch_tokens(llama, seconds=4.0, clock=clock_of(times, ran)) == 512


def test_out_of_memory_ends_the_search_below(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(size: int) -> None:
        if size > 512:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(budget, "_runner", lambda model, shared: run)
    assert measure_batch_tokens(llama, sizes=(256, 512, 1024)) in (256, 512)


@pytest.mark.parametrize("shared", [True, False])
def test_the_forwards_really_run(llama: Any, shared: bool) -> None:
    assert measure_batch_tokens(llama, shared=shared, sizes=(64, 256)) in (64, 256)
