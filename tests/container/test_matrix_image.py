"""The timing matrix in the CPU image: the three CPU cells for real, the others with their reasons."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow
TAG = os.environ.get("LLMJOBS_IMAGE", "llmjobs:cpu")
MAKE_LLAMA = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from random_llama import make_llama
make_llama(Path(sys.argv[2]), hidden=256, layers=4, length=2048, spread=0.02)
"""


def docker(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module", params=["demo", "mounted"])
def cells(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Every cell's ``cell.json`` after one run in the image, without network."""
    if not shutil.which("docker") or docker("image", "inspect", TAG).returncode:
        pytest.skip(f"no image {TAG} here: make image-cpu")
    place = tmp_path_factory.mktemp(request.param)
    place.chmod(0o755)  # the image's user is not this one
    (results := place / "results").mkdir()
    model = {"id": "llmjobs/demo-base", "name": "model"}
    if request.param == "mounted":
        helpers = Path(__file__).parents[1]
        subprocess.run([sys.executable, "-c", MAKE_LLAMA, helpers, place / "llama"], check=True)
        model["id"] = "/study/llama"
    demo = {"name": "demo", "subjects": ["number_size", "calendar_order"], "limit": 10}
    section = {"benchmarks": [demo], "repetitions": 1, "context_lengths": [64, 256], "new_tokens": 8}
    (place / "grid.yaml").write_text(yaml.safe_dump({"models": [model], "matrix": section}))
    for file in place.rglob("*.*"):
        file.chmod(0o644)  # safetensors writes files for their owner alone
    mounts = ("-v", f"{place}:/study:ro", "-v", f"{results}:/app/results")
    ended = docker("run", "--rm", "--network=none", *mounts, TAG, "matrix", "/study/grid.yaml")
    assert ended.returncode == 0, ended.stderr
    found = map(json.loads, (path.read_text() for path in results.glob("grid/matrix/*/cell.json")))
    return {cell["cell"].partition(".")[2]: cell for cell in found}


@pytest.mark.parametrize("precision", ["none", "8bit", "4bit"])
def test_a_cpu_cell_has_figures(cells: dict[str, dict], precision: str) -> None:
    cell = cells[f"cpu-{precision}"]
    assert (cell["status"], cell["device"], cell["quantization"]) == ("done", "cpu", precision), cell.get("reason")
    assert cell["accuracy"]["n"] == 20
    for name in ("load_s", "real_s", "user_s", "ttft_s", "decode_tokens_per_s", "questions_per_s", "peak_rss_bytes"):
        assert cell["measures"][name]["median"] > 0, name


def test_a_cell_without_its_device_has_a_reason(cells: dict[str, dict]) -> None:
    others = [cell for name, cell in cells.items() if not name.startswith("cpu")]
    assert len(others) == 6
    assert all(cell["status"] == "unavailable" and cell["reason"] for cell in others)
