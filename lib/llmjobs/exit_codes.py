"""The exit codes of every command."""

from typing import Final

EXIT_OK: Final = 0
EXIT_ERROR: Final = 1
"""Nothing was done, or nothing can be done."""
EXIT_USAGE: Final = 2
"""A manifest or an option is not valid."""
EXIT_UNITS_FAILED: Final = 3
"""Units or calls failed, or questions ended in an error; the rest has results."""
EXIT_NONE_FITS: Final = 4
"""No candidate is known to meet the constraints of ``llmjobs choose``."""
EXIT_RESUMABLE: Final = 75
"""Stopped by a signal with progress saved; the same command resumes (``EX_TEMPFAIL`` of sysexits.h)."""
