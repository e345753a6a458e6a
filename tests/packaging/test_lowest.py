"""The lowest versions that are promised: one for each dependency, none above the pins."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_no_bound_is_above_what_is_pinned():
    lines = (ROOT / "docker" / "requirements-run.txt").read_text(encoding="utf-8").splitlines()
    pinned = {name: Version(version) for name, _, version in (line.partition("==") for line in lines if "==" in line)}
    extras = PROJECT["optional-dependencies"]
    wanted = map(Requirement, [*PROJECT["dependencies"], *extras["serve"], *extras["ray"]])
    lowest = {
        canonicalize_name(one.name): Version(bound.version)
        for one in wanted
        for bound in one.specifier
        if bound.operator == ">="
    }
    assert {"torch", "numpy", "transformers", "starlette", "ray"} <= set(lowest) <= set(pinned)
    assert not [name for name in lowest if lowest[name] > pinned[name]]
