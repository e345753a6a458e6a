"""Writes the pins from the running environment: what llmjobs needs to run, and what its tests need besides."""

import re
from importlib.metadata import distribution, distributions
from pathlib import Path

FOLDER = Path(__file__).parent
NOT_PINNED = {"llmjobs", "pip"}
HEAD = '# Written by "make lock"; exact versions that the tests passed with.\n'


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needs(name: str, extra: str = "") -> set[str]:
    """Names of all installed distributions that ``name`` needs, itself included."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = [(name, extra)]
    while waiting:
        current, wanted = waiting.pop()
        for text in distribution(current).requires or []:
            requirement = Requirement(text)
            applies = requirement.marker is None or any(
                requirement.marker.evaluate({"extra": value}) for value in {"", wanted}
            )
            key = canonical(requirement.name)
            if applies and key not in found and key in INSTALLED:
                found.add(key)
                waiting += [(key, one) for one in requirement.extras or [""]]
    return found


INSTALLED = {canonical(d.metadata["Name"]): d.version for d in distributions()}


def write(path: Path, names: set[str]) -> None:
    """Pin ``names``; a local version label (``+cpu``) is left out, so that any build of that version serves."""
    lines = [f"{name}=={INSTALLED[name].split('+')[0]}\n" for name in sorted(names - NOT_PINNED)]
    path.write_text(HEAD + "".join(lines))


if __name__ == "__main__":
    run = needs("llmjobs", "serve") | needs("llmjobs", "ray")
    write(FOLDER / "requirements-run.txt", run)
    write(FOLDER / "requirements-dev.txt", (needs("llmjobs", "dev")) - run)
