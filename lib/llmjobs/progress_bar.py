"""Progress of a job: a bar with rate and time left on a terminal or in a notebook, plain lines elsewhere."""

import sys
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm
import time

NO_WIDGETS = "IProgress not found"
"""The start of tqdm's advice to install ipywidgets, which a text bar does not need."""


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel; a plain IPython terminal is not."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


def new_bar(stream: TextIO, total: int, **settings: Any) -> "tqdm[Any] | None":
    """Return a bar on ``stream``, or None if it would fill a log with partial lines.

    ``settings`` are tqdm's.
    """
    notebook = in_notebook()
    if not notebook and not stream.isatty():
        return None
    if notebook and find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as widget

        bar: tqdm[Any] = widget(total=total, **settings)
        return bar
    from tqdm import tqdm as text

    return text(total=total, dynamic_ncols=not notebook, file=stream, **settings)


def import_quietly() -> None:
    """Import tqdm's choice of bars, which other packages use, without its advice about widgets."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=NO_WIDGETS)
        import tqdm.auto  # noqa: F401


PLAIN_INTERVAL_S = 15.0


class Progress:
    """Counts items over all units of a job."""

    def __init__(self, job: str, total: int, done: int, stream: TextIO | None = None) -> None:
        """Start at ``done`` of ``total`` items."""
        self.job, self.total, self.done = job, total, done
        self.at_most = False
        """The job may end before the total is reached."""
        self._first = done
        self._stream = stream or sys.stderr
        self._began = self._said = time.monotonic()
        self._bar = new_bar(self._stream, total, initial=done, unit="")

    def unit(self, name: str) -> None:
        """Show the current unit."""
        if self._bar is not None:
            self._bar.set_description_str(name)

    def advance(self, items: int, unit: str) -> None:
        """Count ``items`` more."""
        self.done += items
        if self._bar is not None:
            self._bar.update(items)
        elif time.monotonic() - self._said >= PLAIN_INTERVAL_S:
            self._said = time.monotonic()
            most = "at most " if self.at_most else ""
            self.say(f"{self.job} {unit}: {self.done:,} of {most}{self.total:,}{self._left(most)}")

    def say(self, line: str) -> None:
        """Print a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def _left(self, most: str) -> str:
        rate = (self.done - self._first) / max(time.monotonic() - self._began, 1e-9)
        if rate <= 0:
            return ""
        minutes, seconds = divmod(round(max(self.total - self.done, 0) / rate), 60)
        return f", {rate:.1f}/s, {most}{minutes}:{seconds:02d} left"
