"""Every file of the library that is not a module is named in pyproject.toml, otherwise the wheel would lack it."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lib" / "llmjobs"
NO_PART = {".pyc", ".tmp"}


def test_the_wheel_carries_every_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["llmjobs"]
    carried = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in {".py", *NO_PART}}
    left_out = sorted(str(path.relative_to(ROOT)) for path in files - carried)
    assert not left_out, f"add them to tool.setuptools.package-data in pyproject.toml: {left_out}"
