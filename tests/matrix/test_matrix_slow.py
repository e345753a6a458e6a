"""The CPU cells for real: three precisions of a demo model and of a random 125 M Llama, and a matrix that is killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from random_llama import make_llama

pytestmark = pytest.mark.slow
PRECISIONS = ("none", "8bit", "4bit")


def write(path: Path, model: dict, **section) -> Path:
    demo = {"name": "demo", "subjects": ["number_size", "calendar_order"], "limit": 10}
    asked = {"benchmarks": [demo], "repetitions": 1, "context_lengths": [64, 256], "new_tokens": 8}
    path.write_text(yaml.safe_dump({"models": [model], "matrix": asked | section}))
    return path


def llmjobs(*arguments, **how) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "llmjobs", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **how)


def cells(folder: Path) -> dict[str, dict]:
    found = (json.loads(path.read_text()) for path in (folder / "matrix").glob("*/cell.json"))
    return {cell["cell"].partition(".")[2]: cell for cell in found}


@pytest.fixture(scope="module", params=["demo", "125m"])
def grid(request, tmp_path_factory):
    """Every cell of a model, run once."""
    place = tmp_path_factory.mktemp(request.param)
    model = {"id": "llmjobs/demo-base", "name": "model"}
    if request.param == "125m":
        model["id"] = str(make_llama(place / "llama", hidden=1088, layers=12, length=2048, spread=0.02))
    done = llmjobs("matrix", write(place / "grid.yaml", model), "--results", place / "r")
    assert done.returncode == 0, done.stderr
    return request.param, cells(place / "r" / "grid"), done.stdout


def test_the_cpu_cells_have_figures_and_the_others_reasons(grid):
    kind, found, shown = grid
    for precision in PRECISIONS:
        cell = found[f"cpu-{precision}"]
        assert (cell["status"], cell["device"], cell["quantization"]) == ("done", "cpu", precision)
        measures = {name: value["median"] for name, value in cell["measures"].items() if value}
        for name in ("import_s", "load_s", "warmup_s", "real_s", "user_s", "ttft_s", "prefill_tokens_per_s"):
            assert measures[name] > 0, name
        assert measures["decode_tokens_per_s"] > 0 < measures["questions_per_s"]
        assert cell["accuracy"]["n"] == 20
        if kind == "125m":
            assert cell["parameters"] > 100e6
    for cell in (cell for name, cell in found.items() if not name.startswith("cpu")):
        assert cell["status"] == "done" or cell["reason"]
    assert "answers changed" in shown


@pytest.mark.cuda
def test_the_gpu_cells_have_gpu_time_memory_and_energy(grid):
    _, found, _ = grid
    if found["cuda-none"]["status"] == "unavailable":
        pytest.skip(f"the GPU cells did not run: {found['cuda-none']['reason']}")
    for precision in PRECISIONS:
        cell = found[f"cuda-{precision}"]
        assert (cell["status"], cell["device"], cell["quantization"]) == ("done", "cuda", precision)
        for name in ("gpu_s", "questions_gpu_s", "peak_device_bytes", "energy_j"):
            assert cell["measures"][name]["median"] > 0, name


def test_quantized_weights_are_smaller(grid):
    _, found, _ = grid
    none, eight, four = (found[f"cpu-{p}"]["measures"]["weight_bytes"]["median"] for p in PRECISIONS)
    assert none > eight > four


def test_killed_twice_the_same_grid(tmp_path):
    """After SIGKILL in the middle of two cells and a resume: the answers of an unbroken run, no process left over."""
    model = {"id": "llmjobs/demo-base", "name": "model", "dtype": "float32"}
    path = write(tmp_path / "grid.yaml", model, devices=["cpu"], dtypes=["float32"], threads=[1])
    assert llmjobs("matrix", path, "--results", tmp_path / "whole").returncode == 0
    for done in (1, 2):
        process = subprocess.Popen(
            [sys.executable, "-m", "llmjobs", "matrix", str(path), "--results", str(tmp_path / "r")],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 240
        folder = tmp_path / "r" / "grid" / "matrix"
        while len(list(folder.glob("*/unit.json"))) < done and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(2)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert llmjobs("matrix", path, "--results", tmp_path / "r").returncode == 0
    records = [
        {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("records.jsonl"))}
        for root in (tmp_path / "whole", tmp_path / "r")
    ]
    assert records[0] == records[1] and len(records[0]) == 3


def test_a_signal_ends_a_cell_at_once_and_resumably(tmp_path):
    model = {"id": "llmjobs/demo-base", "name": "model"}
    path = write(tmp_path / "grid.yaml", model, devices=["cpu"], quantizations=["none"], repetitions=3)
    process = subprocess.Popen([sys.executable, "-m", "llmjobs", "matrix", str(path), "--results", str(tmp_path / "r")])
    attempts = tmp_path / "r" / "grid" / "matrix" / "model.cpu-none" / "attempts.json"
    deadline = time.monotonic() + 120
    while not attempts.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.wait(30) == 75
    assert time.monotonic() - began < 10
    assert json.loads(attempts.read_text())["kills"] == 0


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def test_a_child_that_is_killed_for_memory(tmp_path):
    """A memory limit that the model exceeds, as in a container: one line, and the other cells continue."""
    folder = make_llama(tmp_path / "llama", hidden=1088, layers=12, length=2048, spread=0.02)
    model = {"id": str(folder), "name": "model"}
    path = write(tmp_path / "grid.yaml", model, devices=["cpu"], quantizations=["none"], dtypes=["float32"])
    process = subprocess.Popen([sys.executable, "-m", "llmjobs", "matrix", str(path), "--results", str(tmp_path / "r")])
    while process.poll() is None:
        for child in _children(process.pid):
            with contextlib.suppress(psutil.Error):
                if "llmjobs.matrix.cell_process" in child.cmdline() and child.memory_info().rss > 500 << 20:
                    child.kill()
        time.sleep(0.02)
    assert process.returncode == 3
    cell = cells(tmp_path / "r" / "grid")["cpu-none"]
    assert cell["status"] == "killed" and "memory ran out" in cell["reason"]
