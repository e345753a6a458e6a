"""The lowest versions that are promised: one for each dependency, none above the pins."""

import subprocess
import sys
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOWEST = ROOT / "docker" / "lowest.py"


def lowest(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, LOWEST, *arguments], capture_output=True, text=True)


def pins_of(text: str) -> dict[str, Version]:
    lines = [line.partition(";")[0].partition("==") for line in text.splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, _, version in lines}


def test_no_bound_is_above_what_is_pinned():
    found = pins_of(lowest("serve").stdout)
    pinned = pins_of((ROOT / "docker" / "requirements-run.txt").read_text(encoding="utf-8"))
    assert {"torch", "numpy", "transformers", "starlette"} <= set(found) <= set(pinned)
    assert not [name for name in found if found[name] > pinned[name]]


def test_an_upper_bound_is_no_part_of_the_lowest_version():
    found = pins_of(lowest("serve").stdout)
    assert (found["torch"].major, found["transformers"].major) == (2, 5)


def test_a_pin_can_be_replaced():
    assert pins_of(lowest("torch==2.13.0").stdout)["torch"] == Version("2.13.0")


def test_what_is_no_extra_and_no_dependency_is_named():
    for argument, line in {"srv": "'srv' is no extra; there are", "tarch==2": "tarch is no dependency"}.items():
        refused = lowest(argument)
        assert refused.returncode == 1 and line in refused.stderr and "Traceback" not in refused.stderr
