"""Whether the kernel ended the attempt before this one for lack of memory.

The checkpoint that opens an attempt notes how many processes the kernel has killed for memory since it started; a
clean end takes the note away. A note that is still there is of an attempt whose end nobody saw: where the kernel has
killed somebody since, it is taken for a kill for memory, else it was a person, a scheduler or a power cut. Where the
kernel does not count (macOS), only a row of such ends with nothing saved in between is taken for one.
"""

from collections.abc import Mapping
from typing import Any

from llmjobs.measuring.endings import boot_id, oom_kills

Note = dict[str, Any]
MOST_VANISHED = 5
"""Ends in a row that nobody saw, where the kernel does not count: as many as for a cell of the matrix."""


def note_of_attempt() -> Note:
    """What the kernel says as an attempt begins; builtins only."""
    return {"boot": boot_id(), "oom_kills": oom_kills()}


def was_killed_for_memory(left: Mapping[str, Any], vanished: int) -> bool:
    """Judge an attempt that left its note; ``vanished`` counts such ends since the last save, this one included."""
    before, now = left.get("oom_kills"), oom_kills()
    if before is None or now is None:
        return vanished % MOST_VANISHED == 0
    return bool(left.get("boot") == boot_id() and now > before)
