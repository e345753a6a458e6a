"""Prints the lowest versions that ``pyproject.toml`` promises, as pins for ``make test-oldest``.

``python docker/lowest.py [EXTRA…] [NAME==VERSION…]``: the dependencies, those of the extras named, and a pin given in
place of the lowest one (for a build that cannot be had).
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lowest_of(line: str) -> str:
    """Turn ``torch>=2.11,<3`` into ``torch==2.11``; a marker stays."""
    return re.sub(r",\s*<=?[^,;]*", "", line).replace(">=", "==")


def lowest(arguments: list[str]) -> list[str]:
    """One ``name==version`` for each dependency; an entry without a lower bound is left to pip.

    Raises:
        SystemExit: an argument is neither an extra nor a pin of a dependency.

    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    given = {canonical(one.split("==")[0]): one for one in arguments if "==" in one}
    for extra in [one for one in arguments if "==" not in one]:
        if extra not in project["optional-dependencies"]:
            sys.exit(f"lowest.py: {extra!r} is no extra; there are {', '.join(project['optional-dependencies'])}")
        lines += [line for line in project["optional-dependencies"][extra] if not line.startswith("llmjobs")]
    pins = {canonical(re.split(r"[>=<!~\[; ]", line)[0]): lowest_of(line) for line in lines}
    if unknown := given.keys() - pins.keys():
        sys.exit(f"lowest.py: {', '.join(sorted(unknown))} is no dependency")
    return sorted((pins | given).values(), key=str.lower)


if __name__ == "__main__":
    print("\n".join(lowest(sys.argv[1:])))
