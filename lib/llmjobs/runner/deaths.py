"""Whether the kernel ended the attempt before this one for lack of memory.

The checkpoint that opens an attempt notes how many processes the kernel has killed for memory; a clean end takes the
note away. A note that is still there is of an attempt whose end nobody saw. Two counts are kept. That of this process's
own control group is exact: if it has grown, the attempt was killed for memory, else it was a person, a scheduler or a
power cut. Where there is no such group, or the next attempt is in another one (a container started anew), there is the
machine's count, which grows with anybody's process: only the second such end in a row, with nothing saved in between,
is taken for one for memory. Where the kernel does not count at all (macOS), five in a row are.
"""

from collections.abc import Mapping
from typing import Any

from llmjobs.measuring.endings import boot_id, oom_kills, own_oom_kills

Note = dict[str, Any]
MOST_VANISHED = 5
"""Ends in a row that nobody saw, where the kernel does not count: as many as for a cell of the matrix."""
MOST_COUNTED = 2
"""The same where the machine's count has grown, which another process of the machine may have caused."""


def note_of_attempt() -> Note:
    """What the kernel says as an attempt begins; builtins only."""
    group, kills = own_oom_kills() or (None, None)
    return {"boot": boot_id(), "oom_kills": oom_kills(), "group": group, "group_kills": kills}


def was_killed_for_memory(left: Mapping[str, Any], vanished: int) -> bool:
    """Judge an attempt that left its note; ``vanished`` counts such ends since the last save, this one included."""
    group, kills = own_oom_kills() or (None, None)
    same_boot = left.get("boot") == boot_id()
    if kills is not None and same_boot and left.get("group") == group and isinstance(left.get("group_kills"), int):
        return bool(kills > left["group_kills"])
    before, now = left.get("oom_kills"), oom_kills()
    if before is None or now is None:
        return vanished % MOST_VANISHED == 0
    return same_boot and bool(now > before) and vanished % MOST_COUNTED == 0
