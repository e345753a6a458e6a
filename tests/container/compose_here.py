"""The compose file and the program that starts it: ``docker compose``, or a distribution's older ``docker-compose``."""

import shutil
import subprocess
from pathlib import Path

import pytest

COMPOSE = Path(__file__).parents[2] / "docker" / "compose.cluster.yaml"


def compose(folder: Path) -> tuple[list[str], Path]:
    """The command and the file to give it; skips where there is neither. The older one knows no ``name:``."""
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return ["docker", "compose"], COMPOSE
    if not shutil.which("docker-compose"):
        pytest.skip("neither docker compose nor docker-compose is here")
    lines = COMPOSE.read_text(encoding="utf-8").splitlines(keepends=True)
    file = folder / COMPOSE.name
    file.write_text("".join(line for line in lines if not line.startswith("name:")), encoding="utf-8")
    return ["docker-compose"], file
