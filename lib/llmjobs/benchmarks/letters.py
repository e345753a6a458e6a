"""Reading a letter off a generated reply, strictly: what is not plainly a letter is unreadable, never a guess."""

import re

_OPENING = r"[(\[{\"'“‘]?"
_AFTER = r"(?=$|\s|[.,:;!)\]}*]|[\"'”’](?!\w))"


def read_letter(reply: str, count: int = 4) -> str | None:
    """Return the letter that stands alone at the start of ``reply``, or None.

    An opening bracket or quote may come before it; a blank, the end or a closing mark must follow. ``"B"``, ``" (C)"``
    and ``"D. Paris"`` are letters; ``"The CorreCt answer"``, ``"b"`` and ``"Because"`` are not, nor is the article in
    ``"A good question"``.
    """
    last = chr(ord("A") + count - 1)
    found = re.match(rf"{_OPENING}([A-{last}]){_AFTER}", reply.strip())
    if not found or re.match(rf"{_OPENING}A [a-z]", reply.strip()):
        return None
    return found[1]
