"""Fixtures of the hub's tests; the sample rows of the benchmarks are used here too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from hub_world import no_sleep, world  # noqa: E402

__all__ = ["no_sleep", "world"]
