"""SIGINT, SIGTERM and SIGHUP: finish the current step, save, and exit with the resumable code.

Between steps nothing is unsaved, so a signal there (while loading a model, or planning) ends the run at once. A second
signal ends it at once during a step too; only that step is lost.

After SIGTERM and SIGHUP there may be nobody to send a second one, and a kill follows soon (from a spot instance,
Kubernetes or Slurm after 30 seconds). So a step that is not finished after :func:`grace_s` seconds is abandoned. If the
process still cannot exit, because it waits for a paid call or a single long operation, it ends itself :data:`LAST_S`
seconds later, which costs no more than a kill. A signal that is ignored at the start (nohup) stays ignored.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from llmjobs.errors import LlmjobsError
from llmjobs.exit_codes import EXIT_RESUMABLE

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_VARIABLE = "LLMJOBS_GRACE_S"
GRACE_S = 25.0
LAST_S = 4.0


class StopRequestedError(BaseException):
    """Ends a run on a signal. It is a BaseException, so that handlers for failures do not catch it."""

    def __init__(self, signal_number: int, *, at_once: bool = False) -> None:
        """Store the signal, and whether there is no time left for anything."""
        super().__init__(signal.Signals(signal_number).name)
        self.at_once = at_once


def grace_s() -> float:
    """Seconds that a step may still take after SIGTERM: ``LLMJOBS_GRACE_S``, otherwise 25.

    Raises:
        LlmjobsError: the variable is not a number of seconds.

    """
    text = os.environ.get(GRACE_VARIABLE, "")
    try:
        seconds = float(text or GRACE_S)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise LlmjobsError(f"{GRACE_VARIABLE}: {text!r} is not a number of seconds above 0; the default is {GRACE_S:g}")
    return seconds


class StopSwitch:
    """Set by the first signal; checked between steps."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        """Nothing requested yet."""
        self.received: int | None = None
        self.grace_s = grace_s
        self._in_step = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Store the signal; end at once, unless it is the first one and a step is running."""
        second = self.received is not None
        self.received = number
        if second or not self._in_step:
            raise StopRequestedError(number, at_once=second)
        self._tell(number)

    def expire(self, _number: int, _frame: FrameType | None) -> None:
        """Abandon the step, whose time is over. The signal's own handler may still wait for an operation to end."""
        if self._in_step:
            raise StopRequestedError(self.received or signal.SIGTERM, at_once=True)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Mark the body as a step, which may finish after the first signal."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False

    def check(self) -> None:
        """Raise :class:`StopRequestedError` if a signal came."""
        if self.received is not None:
            raise StopRequestedError(self.received)

    def _tell(self, number: int) -> None:
        name = signal.Signals(number).name
        limit = "" if number == signal.SIGINT else f" (at most {self.grace_s:g} s)"
        again = "Press Ctrl-C again" if number == signal.SIGINT else "Send the signal again"
        line = f"\nllmjobs: {name}: finishing the current step{limit}. {again} to quit now.\n"
        with contextlib.suppress(OSError):
            os.write(2, line.encode())  # not through a stream: this thread may be in the middle of writing to it


class _Limits:
    """Watches for signals in a thread and enforces the time limit; a handler would wait for the current operation."""

    def __init__(self, grace_s: float) -> None:
        """Start watching; in the main thread only."""
        self._grace_s, self._main = grace_s, threading.get_ident()
        self._over = threading.Event()
        self._seen, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        self._old = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="stop", daemon=True).start()

    def close(self) -> None:
        """Stop watching; a process whose time was already over still ends."""
        self._over.set()
        signal.set_wakeup_fd(self._old)
        self._wakeup.close()

    def _watch(self) -> None:
        with self._seen:
            while numbers := self._seen.recv(64):
                if {signal.SIGTERM, signal.SIGHUP}.intersection(numbers):
                    self._keep()

    def _keep(self) -> None:
        if not self._over.wait(self._grace_s):
            signal.pthread_kill(self._main, signal.SIGALRM)
            time.sleep(LAST_S)
            os._exit(EXIT_RESUMABLE)


@contextmanager
def stop_switch() -> Iterator[StopSwitch]:
    """Install the handlers for the body (in the main thread only) and put the old ones back."""
    switch = StopSwitch(grace_s())
    if threading.current_thread() is not threading.main_thread():
        yield switch
        return
    caught = [number for number in CAUGHT if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {**dict.fromkeys(caught, switch.handle), signal.SIGALRM: switch.expire}
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    limits = _Limits(switch.grace_s)
    try:
        yield switch
    finally:
        limits.close()
        for number, handler in old.items():
            if handler is not None:  # a handler that is not Python's cannot be restored
                signal.signal(number, handler)
