"""For a model on several GPUs, all that hold memory are timed and counted, not only the first."""

from contextlib import contextmanager

import pytest
import torch

from llmjobs.clocks import NO_GPU_TIME
from llmjobs.engines.transformers.device import DeviceClock


class Cards:
    """Three fake GPUs; the first and the last hold memory."""

    def __init__(self, held):
        self.held, self.current, self.now = held, 0, 0.0
        self.resets = []

    def allocated(self, index):
        return self.held.get(index, 0)

    @contextmanager
    def on(self, index):
        self.current, before = index, self.current
        yield
        self.current = before


@pytest.fixture
def cards(monkeypatch):
    found = Cards({0: 10, 2: 30})

    class Event:
        def __init__(self, *, enable_timing):
            self.at, self.card = None, None

        def record(self):
            self.at, self.card = found.now, found.current

        def synchronize(self):
            assert self.at is not None

        def elapsed_time(self, other):
            assert self.card == other.card, "events of two cards cannot be compared"
            return 1000 * (other.at - self.at)

    for name, value in {
        "device_count": lambda: 3,
        "memory_allocated": found.allocated,
        "max_memory_allocated": lambda index: 2 * found.allocated(index),
        "reset_peak_memory_stats": found.resets.append,
        "current_device": lambda: 0,
        "device": found.on,
        "Event": Event,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return found


def test_every_card_that_holds_memory_counts(cards):
    clock = DeviceClock("cuda")
    clock.start()
    cards.now = 1.5
    assert clock.stop() == (3.0, 80)
    assert clock.each() == ((1.5, 20), (1.5, 60))
    assert cards.resets == [0, 2]


def test_cards_that_loading_began_to_use_count_too(cards):
    cards.held = {}
    clock = DeviceClock("cuda")
    clock.start()
    cards.held, cards.now = {0: 10, 1: 5}, 2.0
    assert clock.stop() == (2.0, 30)
    assert clock.each() == ((2.0, 20), (0.0, 10))


def test_the_cpu_has_no_card():
    clock = DeviceClock("cpu")
    clock.start()
    assert clock.stop() == (None, None)
    assert clock.each() == ()
    assert NO_GPU_TIME["cpu"]
