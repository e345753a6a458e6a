"""Bytes that arrive: one bar over everything on a terminal and in a notebook, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from llmjobs.progress_bar import new_bar

PLAIN_INTERVAL_S = 10.0


class DownloadProgress:
    """Counts bytes over all files of a fetch."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        """Expect ``total`` bytes."""
        self.total, self.done = total, 0
        self._stream = stream or sys.stderr
        self._said = self._began = time.monotonic()
        self._name = ""
        self._bar = new_bar(self._stream, total, unit="B", unit_scale=True) if total > 0 else None

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal clean."""
        if self._bar is not None:
            self._bar.close()

    def name(self, text: str) -> None:
        """Name what is being fetched."""
        self._name = text
        if self._bar is not None:
            self._bar.set_description_str(text)

    def advance(self, count: int) -> None:
        """Count ``count`` more bytes."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._said >= PLAIN_INTERVAL_S:
            self._said = time.monotonic()
            rate = self.done / max(self._said - self._began, 1e-9)
            print(
                f"{self._name}: {size_text(self.done)} of {size_text(self.total)}, {size_text(round(rate))}/s",
                file=self._stream,
                flush=True,
            )


def size_text(size: int) -> str:
    """``2.5 GB``: decimal units, as the hub shows them."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
