"""Names that fit beside a plot and still tell the models apart."""

import os
from collections.abc import Sequence


def short_names(names: Sequence[str], limit: int = 34) -> list[str]:
    """Return names of ``limit`` characters at most that differ: what cut ones share is left out."""
    cut = [_cut(name, limit) for name in names]
    if len(set(cut)) == len(set(names)):
        return cut
    long = sorted({name for name in names if len(name) > limit})
    head = len(os.path.commonprefix(long))
    tail = len(os.path.commonprefix([name[head:][::-1] for name in long]))
    keep = max(limit - 4, 8)
    result = []
    for name in names:
        inner = name[max(0, head - 6) : len(name) - max(0, tail - 6)]
        result.append(name if len(name) <= limit else f"…{inner[:keep]}…")
    return (
        result
        if len(set(result)) == len(set(names))
        else [f"{n + 1}: {_cut(name, limit - 4)}" for n, name in enumerate(names)]
    )


def _cut(name: str, limit: int) -> str:
    """Cut the middle out of a name."""
    if len(name) <= limit:
        return name
    head = limit * 3 // 5
    return f"{name[:head]}…{name[-(limit - head - 1) :]}"
