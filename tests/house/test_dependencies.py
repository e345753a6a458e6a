"""What the library imports is declared in pyproject.toml, and what is declared is pinned for make and the images."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = ROOT / "docker"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return {canonical(re.match(r"[\w.-]+", line).group()) for lines in lists for line in lines} - {"llmjobs"}


def imported(folder: str) -> dict[str, str]:
    """Distribution → a file that imports it, in functions too."""
    found, owners = {}, packages_distributions()
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in {name.split(".")[0] for name in names} - {*sys.stdlib_module_names, "llmjobs"}:
                found |= {canonical(owner): str(path.relative_to(ROOT)) for owner in owners.get(name, [name])}
    return found


def pinned(file: str) -> dict[str, str]:
    lines = (PINS / file).read_text(encoding="utf-8").splitlines()
    return {canonical(line.split("==")[0]): line for line in lines if not line.startswith("#")}


def test_what_is_imported_is_declared():
    known = declared(*(extra for extra in PROJECT["optional-dependencies"] if extra != "dev")) | {"pydantic-core"}
    unknown = {name: path for name, path in imported("lib").items() if name not in known}
    assert not unknown, f"add them to dependencies in pyproject.toml, then make lock: {unknown}"


def test_what_is_declared_is_pinned():
    run = pinned("requirements-run.txt")
    assert not declared("ray", "serve") - {*run}, "make lock"
    assert not declared("dev") - {*run, *pinned("requirements-dev.txt")}, "make lock"


def test_pins_are_exact_and_of_the_index():
    for line in [*pinned("requirements-run.txt").values(), *pinned("requirements-dev.txt").values()]:
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), f"{line}: one exact version, without a local label or an address"
