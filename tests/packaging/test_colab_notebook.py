"""The Colab notebook: stripped, its choices exist, and it runs from end to end in a clean environment."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from clean_venv import BROUGHT, ROOT, clean_python, versions
from packaging.requirements import Requirement

from llmjobs.manifest import load_manifest

sys.path.append(str(Path(__file__).parents[1] / "api"))

from api_runs import count, once_there_are, records_of  # noqa: E402

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "colab.ipynb"
KEPT = ("torch", "numpy", "transformers", "tokenizers", "pandas", "scipy", "matplotlib")
RUNNER = Path(__file__).with_name("run_notebook.py")
TIMEOUT_S = 1200
COLAB = {
    "__init__": "",
    "userdata": """
class SecretNotFoundError(Exception): pass
class NotebookAccessError(Exception): pass
def get(name): return "hf_ofTheSecrets"
""",
    "drive": "def mount(folder): print('mounted', folder)",
    "files": "def download(path): print('downloaded', path)",
}
"""What the notebook uses of the package that a Colab brings along."""


@pytest.fixture(scope="module")
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def parameters_of(notebook: Any) -> Any:
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    return cell


def test_no_outputs_are_committed(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.source
        assert set(cell.metadata) <= {"tags"}, cell.metadata
    assert set(notebook.metadata) == {"accelerator", "colab", "kernelspec", "language_info"}


def test_the_choices_exist_and_are_explained(notebook):
    choices = json.loads(re.search(r"MANIFEST = .*@param (\[.*?\])", parameters_of(notebook).source)[1])
    for name in choices:
        assert load_manifest(name).name == name
        assert any(f"| `{name}` |" in cell.source for cell in notebook.cells), name
    assert {"demo", "small", "medium"} <= set(choices)


def prepared(notebook: Any, **parameters: object) -> Any:
    """A copy with this run's parameters in a separate cell, as papermill does."""
    copy = nbformat.from_dict(json.loads(json.dumps(notebook)))
    at = copy.cells.index(parameters_of(copy)) + 1
    lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    copy.cells.insert(at, nbformat.v4.new_code_cell(lines))
    return copy


def start(notebook: Any, python: Path, folder: Path) -> subprocess.Popen[str]:
    """Begin to run all cells in ``folder``."""
    nbformat.write(notebook, folder / "run.ipynb")
    command = [sys.executable, RUNNER, folder / "run.ipynb", python]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def execute(notebook: Any, python: Path, folder: Path) -> Any:
    """Run all cells to the end; returns the notebook with its outputs."""
    process = start(notebook, python, folder)
    said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, said[-3000:]
    return nbformat.read(folder / "run.ipynb", as_version=4)


def kill_kernel(process: subprocess.Popen[str]) -> None:
    """As a runtime that is taken away: the kernel dies at once."""
    for child in psutil.Process(process.pid).children(recursive=True):
        if "ipykernel_launcher" in child.cmdline():
            child.kill()


def printed(notebook: Any) -> str:
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    return "".join("".join(one.get("text", "")) for one in outputs)


def shown(notebook: Any) -> list[str]:
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    return [one["data"]["text/html"] for one in outputs if "text/html" in one.get("data", {})]


@pytest.fixture
def clean(monkeypatch) -> Path:
    for name in ("PYTHONPATH", "HF_TOKEN", "LLMJOBS_RESULTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return clean_python()


@pytest.mark.slow
def test_from_end_to_end_outside_colab(notebook, dist, clean, tmp_path):
    before = versions(clean, *KEPT)
    shutil.copy(dist.wheel, tmp_path)
    done = execute(prepared(notebook, MANIFEST="demo"), clean, tmp_path)
    said = printed(done)
    assert versions(clean, *KEPT) == before
    for line in ("no Colab secrets", "no Drive to mount", "nothing was run", "no download: the report is"):
        assert line in said
    assert re.search(r"\d+ ok, \d+ warnings?, 0 failed", said), said
    tables = [text for text in shown(done) if "<h4>demo</h4>" in text]
    assert len(tables) == 1 and tables[0].count("data:image/png;base64,") > 5 and "demo-narrow" in tables[0]
    assert len([text for text in shown(done) if "<style" in text and "demo-narrow" in text]) == 1, "the pandas example"
    assert (tmp_path / "llmjobs-results" / "demo" / "report.pdf").read_bytes().startswith(b"%PDF")
    assert "IProgress" not in said and "Traceback" not in said


@pytest.mark.slow
def test_a_killed_runtime_goes_on_from_the_drive(notebook, dist, clean, tmp_path, monkeypatch):
    package = tmp_path / "brought" / "google" / "colab"
    package.mkdir(parents=True)
    for name, text in COLAB.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "brought"))
    changes = ["models=[llmjobs/demo-base, llmjobs/demo-tiny]", "eval.benchmarks[0].limit=20"]
    drive = tmp_path / "drive"
    ready = prepared(notebook, MANIFEST="smoke", OVERRIDES=changes, INSTALL=str(dist.wheel), DRIVE=str(drive))
    process = start(ready, clean, tmp_path)
    with once_there_are(100, drive, lambda: kill_kernel(process)):
        said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode != 0 and "Kernel died" in said, said[-3000:]
    unbroken = ["-m", "llmjobs", "eval", "smoke", *(part for one in changes for part in ("--set", one))]
    subprocess.run([clean, *unbroken, "--results", "unbroken"], cwd=tmp_path, check=True, capture_output=True)
    run = drive / "MyDrive" / "llmjobs-results"
    assert 100 <= count(run) < count(tmp_path / "unbroken")
    assert not (run / "smoke" / "report.pdf").exists()

    done = execute(ready, clean, tmp_path)
    said = printed(done)
    assert records_of(run) == records_of(tmp_path / "unbroken") != {}
    assert (run / "smoke" / "report.pdf").exists()
    assert "Token: from Colab's secrets." in said and f"mounted {drive}" in said
    assert f"downloaded {run / 'smoke' / 'report.pdf'}" in said
    assert "hf_ofTheSecrets" not in json.dumps(done)


@pytest.mark.parametrize("name", BROUGHT)
def test_what_a_colab_brings_is_new_enough(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wanted,) = [one for one in map(Requirement, project["dependencies"]) if one.name == name]
    assert wanted.specifier.contains(BROUGHT[name]), f"{wanted}: pip would replace Colab's {name} {BROUGHT[name]}"


def tiny_wheel(folder: Path, *, named: str = "llmjobs-9.9-py3-none-any.whl", needs: str = "") -> None:
    """A wheel without code that pip installs in a moment."""
    requirement = f"Requires-Dist: {needs}\n" if needs else ""
    info = "llmjobs-9.9.dist-info"
    with zipfile.ZipFile(folder / named, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: llmjobs\nVersion: 9.9\n{requirement}")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def install(notebook: Any, folder: Path, monkeypatch) -> subprocess.CompletedProcess[str]:
    """Run the parameters and the install cell as committed, without a network, into ``folder``/target."""
    monkeypatch.setenv("PIP_TARGET", str(folder / "target"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (cell,) = [cell for cell in notebook.cells if "def uploaded" in cell.source]
    code = f"{parameters_of(notebook).source}\n{cell.source}"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S)


def test_without_a_wheel_the_cell_says_how_to_make_one(notebook, tmp_path, monkeypatch):
    done = install(notebook, tmp_path, monkeypatch)
    assert done.returncode != 0
    for words in ("make dist", "upload dist/llmjobs-", "Run this cell again"):
        assert words in done.stderr


@pytest.mark.parametrize("named", ["llmjobs-9.9-py3-none-any.whl", "llmjobs-9.9-py3-none-any (1).whl"])
def test_an_uploaded_wheel_is_found_and_installed(named, notebook, tmp_path, monkeypatch):
    tiny_wheel(tmp_path, named=named)
    done = install(notebook, tmp_path, monkeypatch)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "target" / "llmjobs-9.9.dist-info").is_dir()
    assert "from llmjobs-9.9-py3-none-any.whl" in done.stdout and "Replaced: nothing" in done.stdout


def test_the_output_of_a_pip_that_fails_is_shown(notebook, tmp_path, monkeypatch):
    tiny_wheel(tmp_path, needs="no-such-package-of-anyone>=7")
    done = install(notebook, tmp_path, monkeypatch)
    assert done.returncode != 0 and "its output above says why" in done.stderr
    assert "no-such-package-of-anyone>=7" in done.stdout and "ERROR" in done.stdout
