"""Wheel and sdist: their contents and metadata, and a job run from each in an empty environment."""

import email
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from clean_venv import clean_python, pip, versions
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REGISTRIES = ("pypi.org", "pythonhosted.org", "anaconda.org", "huggingface.co", "docker.io", "ghcr.io")
KEPT = ("torch", "numpy", "transformers")
FEW = ("--set", "eval.benchmarks[0].limit=20", "--set", "converse.conversations=2")
"""Every section of the demo on few questions; the Colab notebook runs the whole of it from the same wheel."""


@pytest.fixture(scope="session")
def metadata(dist) -> Message:
    with zipfile.ZipFile(dist.wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_what_the_wheel_holds(dist):
    names = zipfile.ZipFile(dist.wheel).namelist()
    assert "llmjobs/py.typed" in names
    for path in (ROOT / "manifests").glob("*.yaml"):
        assert f"llmjobs/manifests/{path.name}" in names
    for model in ("demo-base", "demo-narrow", "demo-tiny"):
        assert f"llmjobs/demo/models/{model}/model.safetensors" in names
    assert all(n.startswith(("llmjobs/", "llmjobs-")) for n in names)
    assert not [n for n in names if n.endswith((".pyc", ".log"))]


def test_the_wheel_is_as_the_tree(dist):
    """Every module and file of the library, and none that is no longer there."""
    with zipfile.ZipFile(dist.wheel) as archive:
        held = {n: archive.read(n) for n in archive.namelist() if n.startswith("llmjobs/")}
    library = ROOT / "lib"
    files = [p for p in library.rglob("*") if p.is_file() and "llmjobs.egg-info" not in p.parts]
    # Path.rglob does not follow the link to the manifests
    files += (library / "llmjobs" / "manifests").glob("*.yaml")
    tree = {str(p.relative_to(library)): p.read_bytes() for p in files if p.suffix != ".pyc"}
    assert set(held) == set(tree)
    assert not [name for name in held if held[name] != tree[name]]


def test_what_the_sdist_holds(dist):
    with tarfile.open(dist.sdist) as archive:
        members = archive.getmembers()
    names = {m.name.partition("/")[2] for m in members}
    needed = {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO", "lib/llmjobs/py.typed", "lib/llmjobs/api.py"}
    assert needed | {f"lib/llmjobs/manifests/{p.name}" for p in (ROOT / "manifests").glob("*.yaml")} <= names
    assert not [m.name for m in members if m.issym() or m.islnk()], "a link may lead nowhere once unpacked"
    assert not [n for n in names if n.endswith((".pyc", ".log")) or n.startswith(("results/", ".venv", ".git"))]


def test_twine_finds_nothing_to_say(dist):
    check = [sys.executable, "-m", "twine", "check", "--strict", dist.wheel, dist.sdist]
    done = subprocess.run(check, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout


def test_metadata(metadata):
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown" and metadata["Summary"] and metadata["Keywords"]
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    assert {"serve", "ray"} <= set(metadata.get_all("Provides-Extra"))
    classifiers = metadata.get_all("Classifier")
    assert "Typing :: Typed" in classifiers and "Programming Language :: Python :: 3.11" in classifiers
    for line in metadata.get_all("Project-URL") or []:
        address = urlsplit(line.partition(", ")[2])
        assert address.scheme == "https" and not (address.hostname or "").endswith(REGISTRIES), line


def test_every_dependency_has_a_lower_bound_and_no_upper_one():
    """A Colab keeps its own torch, numpy and transformers: nothing here may pull them up without need, or down.

    Only torch and transformers stop before their next major version, which nobody can have tested.
    """
    upper = {"torch": "<3", "transformers": "<6"}
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["serve"]]:
        requirement = Requirement(line)
        bounds = [part for part in str(requirement.specifier).split(",") if not part.startswith(">=")]
        assert ">=" in str(requirement.specifier), line
        assert bounds == [upper[requirement.name]] if requirement.name in upper else not bounds, line


def run_in(folder: Path, *command: str | Path, path: Path | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LLMJOBS_RESULTS")}
    environment |= {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def records_of(results: Path) -> dict[Path, bytes]:
    return {p.relative_to(results): p.read_bytes() for p in results.rglob("records.jsonl")}


@pytest.fixture(scope="module")
def from_source(tmp_path_factory) -> dict[Path, bytes]:
    folder = tmp_path_factory.mktemp("source")
    run_in(folder, sys.executable, "-m", "llmjobs", "run", "demo", *FEW, path=ROOT / "lib")
    return records_of(folder / "results")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_demo_runs_where_nothing_else_is(dist, from_source, tmp_path, kind):
    python = clean_python()
    before = versions(python, *KEPT)
    pip(python, "install", f"{getattr(dist, kind)}[serve]")
    assert versions(python, *KEPT) == before
    pip(python, "check")
    where = run_in(tmp_path, python, "-c", "import llmjobs; print(llmjobs.__file__)")
    assert where.startswith(str(python.parents[1]))
    said = run_in(tmp_path, python.with_name("llmjobs"), "run", "manifests/demo.yaml", *FEW)
    assert "report: " in said and "Traceback" not in said
    assert (tmp_path / "results" / "demo" / "report.pdf").read_bytes().startswith(b"%PDF")
    assert records_of(tmp_path / "results") == from_source != {}
    run_in(tmp_path, python, "-m", "llmjobs", "serve", "--help")
