"""SIGINT, SIGTERM and SIGHUP: finish the step at hand, save, leave with the resumable code.

Between steps nothing is unsaved, so there (loading a model, planning) a signal ends the run at once. A second signal
ends it at once in a step too: the step is lost, nothing else.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequestedError(BaseException):
    """Ends a run on a signal. A BaseException, so that no handler for failures takes it for one."""

    def __init__(self, signal_number: int) -> None:
        """Remember which signal it was."""
        super().__init__(signal.Signals(signal_number).name)


class StopSwitch:
    """Set by the first signal; asked between steps."""

    def __init__(self) -> None:
        """Nothing requested yet."""
        self.received: int | None = None
        self._in_step = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Note the signal; leave at once unless a step is running for the first time."""
        second = self.received is not None
        self.received = number
        if second or not self._in_step:
            raise StopRequestedError(number)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Mark the body as a step that the first signal lets finish."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False

    def check(self) -> None:
        """Raise :class:`StopRequestedError` if a signal came."""
        if self.received is not None:
            raise StopRequestedError(self.received)


@contextmanager
def stop_switch() -> Iterator[StopSwitch]:
    """Install the handlers for the body (in the main thread only) and put the old ones back."""
    switch = StopSwitch()
    if threading.current_thread() is not threading.main_thread():
        yield switch
        return
    old = {number: signal.signal(number, switch.handle) for number in CAUGHT}
    try:
        yield switch
    finally:
        for number, handler in old.items():
            if handler is not None:  # one that is not Python's cannot be put back
                signal.signal(number, handler)
