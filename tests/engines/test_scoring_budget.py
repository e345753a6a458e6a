import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scoring_models import llama_config, random_model

from llmjobs.engines.pass_time import best_size
from llmjobs.engines.transformers import batch_size, first_layers
from llmjobs.engines.transformers.batch_size import Budget, measure_batch_tokens


def clock_of(times: dict[int, float], ran: list[int]) -> Any:
    """A clock that advances by the pretended cost of the last forward."""
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
    monkeypatch.setattr(batch_size, "_runner", lambda *_: sizes.append)
    monkeypatch.setattr(batch_size, "enough_layers", lambda *_, **__: None)
    yield sizes


SIZES = (256, 512, 1024, 2048, 4096)


def times_of(pass_s: float, token_s: float) -> dict[int, float]:
    return {size: pass_s + token_s * size for size in range(64, 40000, 64)}


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
    clock = clock_of(times | {64: 0.9}, ran)
    found = measure_batch_tokens(llama, seconds=1000, sizes=list(times), clock=clock)
    assert found.batch_tokens == expected


@pytest.mark.parametrize(
    ("pass_s", "token_s", "seconds", "expected"),
    [(9.0, 0.03, 5, 4096), (9.0, 0.03, 1000, 4096), (1e-5, 0.03, 5, 256), (1.0, 0.03, 30, 1024)],
    ids=["unpacked in each pass", "the same with time", "nothing but tokens", "a second a pass"],
)
def test_where_a_pass_costs_much_whatever_it_reads_batches_are_large(
    llama: Any, ran: list[int], pass_s: float, token_s: float, seconds: float, expected: int
) -> None:
    clock = clock_of(times_of(pass_s, token_s), ran)
    found = measure_batch_tokens(llama, seconds=seconds, sizes=SIZES, clock=clock)
    assert found.batch_tokens == expected
    assert found.time is not None
    assert found.time.pass_s == pytest.approx(pass_s, abs=0.02 + 0.01 * pass_s)
    assert found.time.token_s == pytest.approx(token_s, rel=0.05)


def test_a_noisy_pass_does_not_hide_that_larger_batches_are_better() -> None:
    measured = [(64, 1.9), (256, 2.6), (512, 5.5)]
    assert best_size(measured, SIZES) > 256
    assert best_size([(64, 0.5), (256, 1.0), (512, 3.0)], SIZES) == 256, "clearly slower"


def test_few_passes_are_made_where_they_are_slow(llama: Any, ran: list[int]) -> None:
    measure_batch_tokens(llama, seconds=5, sizes=SIZES, clock=clock_of(times_of(9.0, 0.03), ran))
    assert ran == [64, 64, 128], "a first one, and two that are timed"


@pytest.mark.parametrize("tokens", [150, 300, 650, 1900, 4000, 20_000])
@pytest.mark.parametrize("pass_s", [1e-4, 2.0])
def test_a_trial_reads_no_more_than_it_may(llama: Any, ran: list[int], tokens: int, pass_s: float) -> None:
    clock = clock_of(times_of(pass_s, 1e-3), ran)
    found = measure_batch_tokens(llama, sizes=SIZES, most_tokens=tokens, clock=clock, seconds=1000)
    read = min(batch_size.PREFIX_TOKENS, tokens // 4) + sum(ran)
    assert read <= tokens if ran else found.time is None, ran
    assert found.batch_tokens in SIZES


def test_a_unit_that_fits_into_the_smallest_batch_needs_no_trial(llama: Any, ran: list[int]) -> None:
    assert batch_size.candidate_sizes(llama, 200) == (256,)
    assert batch_size.candidate_sizes(llama, 600) == (256, 512, 1024)
    found = measure_batch_tokens(llama, sizes=(256,), clock=clock_of({}, ran))
    assert (found.batch_tokens, found.time, ran) == (256, None, [])


def test_batches_fit_into_the_free_memory(llama: Any) -> None:
    assert batch_size.candidate_sizes(llama, free_bytes=4 * 1000 * batch_size.bytes_a_token(llama)) == (256, 512)


def test_the_search_goes_on_for_a_tenth_of_the_study(llama: Any, ran: list[int]) -> None:
    times = times_of(1.0, 0.01)
    measure_batch_tokens(llama, seconds=5, sizes=SIZES, clock=clock_of(times, ran))
    short = max(ran)
    ran.clear()
    measure_batch_tokens(llama, seconds=5, sizes=SIZES, study_tokens=100_000, clock=clock_of(times, ran))
    assert short <= 256 < max(ran) == 4096


def test_out_of_memory_ends_the_search_below(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(size: int) -> None:
        if size > 512:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(batch_size, "_runner", lambda *_: run)
    assert measure_batch_tokens(llama, sizes=(256, 512, 1024)).batch_tokens in (128, 256)


def test_what_was_found_is_read_back(llama: Any, ran: list[int]) -> None:
    found = measure_batch_tokens(llama, sizes=SIZES, clock=clock_of(times_of(9.0, 0.03), ran))
    again = Budget.from_builtin(found.to_builtin())
    assert again is not None and again.to_builtin() == found.to_builtin()
    for broken in (None, {}, [], found.to_builtin() | {"batch_tokens": -1}, found.to_builtin() | {"largest": "x"}):
        assert Budget.from_builtin(broken) is None  # type: ignore[arg-type]
    assert Budget.from_builtin(found.to_builtin() | {"token_s": float("nan")}).time is None  # type: ignore[union-attr]


@pytest.mark.parametrize("shared", [True, False])
def test_the_forwards_really_run(llama: Any, shared: bool) -> None:
    assert measure_batch_tokens(llama, shared=shared, sizes=(64, 256)).batch_tokens in (64, 256)


def test_the_first_layers_stand_for_all_where_they_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(llama_config(layers=8))
    layers: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda *_: layers.append(len(model.model.layers)))
    monkeypatch.setattr(first_layers, "LONGEST_TRIAL_S", 0.0)
    found = measure_batch_tokens(model, sizes=(256, 512))
    assert set(layers) == {2}
    assert len(model.model.layers) == 8
    assert "2 of 8 layers" in found.reason


def test_waiting_for_a_processor_does_not_count_and_waiting_for_else_does() -> None:
    if (
        batch_size.undisturbed_s() == pytest.approx(time.perf_counter(), abs=1e-6)
        and not batch_size._SCHEDSTAT.exists()
    ):
        pytest.skip("this system does not say how long a process stood in line")
    begun, wall = batch_size.undisturbed_s(), time.perf_counter()
    time.sleep(0.2)
    assert batch_size.undisturbed_s() - begun > 0.15
    assert batch_size.undisturbed_s() - begun <= time.perf_counter() - wall + 1e-3


def test_a_system_that_does_not_say_so_is_timed_by_the_wall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "_SCHEDSTAT", tmp_path / "none")
    assert batch_size.undisturbed_s() == pytest.approx(time.perf_counter(), abs=0.05)
