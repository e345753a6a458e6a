"""The wheel: installed elsewhere, in an empty folder, it gives the same records as the source tree."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_what_the_wheel_holds(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "llmjobs/py.typed" in names
    for path in (ROOT / "manifests").glob("*.yaml"):
        assert f"llmjobs/manifests/{path.name}" in names
    for model in ("demo-base", "demo-narrow", "demo-tiny"):
        assert f"llmjobs/demo/models/{model}/model.safetensors" in names
    assert not [n for n in names if n.startswith(("tests/", "results/")) or n.endswith((".pyc", ".log"))]


def test_the_same_records_from_an_installed_wheel(wheel, tmp_path):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = ["-m", "llmjobs", "eval", "smoke", "--limit", "5", "--set", "models=[llmjobs/demo-tiny]"]
    run = {"cwd": empty, "check": True, "capture_output": True, "text": True}
    subprocess.run([sys.executable, *arguments], env=os.environ | {"PYTHONPATH": str(site)}, **run)
    subprocess.run(
        [sys.executable, *arguments, "--results", "source"], env=os.environ | {"PYTHONPATH": str(ROOT / "lib")}, **run
    )
    where = [sys.executable, "-c", "import llmjobs; print(llmjobs.__file__)"]
    used = subprocess.run(where, env=os.environ | {"PYTHONPATH": str(site)}, **run).stdout
    assert used.startswith(str(site))
    installed = {p.relative_to(empty / "results"): p.read_bytes() for p in (empty / "results").rglob("records.jsonl")}
    source = {p.relative_to(empty / "source"): p.read_bytes() for p in (empty / "source").rglob("records.jsonl")}
    assert installed == source != {}
