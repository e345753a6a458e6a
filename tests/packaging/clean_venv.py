"""An environment without llmjobs that has what a Colab has; made once as ``.venv-clean``, reset on each use."""

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-clean"
PINS = [ROOT / "docker" / name for name in ("requirements-run.txt", "requirements-dev.txt")]
BROUGHT = {
    "numpy": "2.0.2",
    "torch": "2.11.0",
    "transformers": "5.15.0",
    "tokenizers": "0.22.2",
    "pandas": "2.2.2",
    "scipy": "1.16.3",
    "matplotlib": "3.10.0",
    "accelerate": "1.13.0",
    "packaging": "26.2",
    "psutil": "5.9.5",
    "pydantic": "2.12.3",
    "PyYAML": "6.0.3",
    "tqdm": "4.67.3",
}
"""What of llmjobs' dependencies a Colab had in summer 2026 and need not be replaced, from the public list of its
packages (transformers as of August). Others are older there than llmjobs needs; pip replaces them."""
PINNED = {"torch"}
"""Taken in the pinned version: Colab's own torch brings gigabytes of CUDA."""
LINKED = "torch"
"""By far the largest, and the same in both environments: a link to the one that runs the tests."""
COLAB = [
    *(name if name in PINNED else f"{name}=={version}" for name, version in BROUGHT.items()),
    "ipykernel",
    "ipywidgets>=8.1",
]
"""What is there before llmjobs is installed; everything else that it needs, its own metadata must bring."""


def clean_python() -> Path:
    """Return the Python of the environment, in which llmjobs is not installed."""
    python, stamp = FOLDER / "bin" / "python", FOLDER / ".made"
    made_of = hashlib.sha256(
        "".join([*COLAB, LINKED, sys.version, *(pins.read_text() for pins in PINS)]).encode()
    ).hexdigest()
    if not stamp.exists() or stamp.read_text() != made_of:
        shutil.rmtree(FOLDER, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
        pinned = [line for pins in PINS for line in pins.read_text().splitlines() if line.partition("==")[0] in PINNED]
        link(LINKED)
        (FOLDER / "pins.txt").write_text("\n".join(pinned))
        constraints = ["-c", str(FOLDER / "pins.txt")]
        index = ["--extra-index-url", found] if (found := os.environ.get("TORCH_INDEX")) else []
        pip(python, "install", *index, *constraints, *COLAB)
        stamp.write_text(made_of)
    pip(python, "uninstall", "--yes", "llmjobs")
    return python


def link(name: str) -> None:
    """Put an installed package of this environment into the clean one; what it needs, pip installs there."""
    (packages,) = (FOLDER / "lib").glob("python3*/site-packages")
    found = distribution(name)
    tops = {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}
    for top in tops:
        (packages / top).symlink_to(Path(str(found.locate_file(top))))


def pip(python: Path, *arguments: str) -> str:
    command = [python, "-m", "pip", "--disable-pip-version-check", arguments[0], "--quiet", *arguments[1:]]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def versions(python: Path, *names: str) -> dict[str, str]:
    code = f"from importlib.metadata import version; print(*map(version, {names!r}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(names, found, strict=True))
