"""One manifest with transformers, llama.cpp, vLLM and a server: the same letters, and one report for the four.

Needs vLLM and llama-cpp-python in one environment, and a real llama-server (xllamacpp); CI makes both.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).parents[1] / "engines"))

from test_endpoint_servers import SUBJECTS, XLLAMACPP, llama_server, served_gguf  # noqa: E402

from llmjobs.engines.llama_cpp.library import is_installed  # noqa: E402
from llmjobs.work.journal import read_records  # noqa: E402

__all__ = ["llama_server", "served_gguf"]
pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed (tools/vllm_environment.sh)"),
    pytest.mark.skipif(not is_installed(), reason="llama-cpp-python is not installed"),
    pytest.mark.skipif(not (XLLAMACPP / "xllamacpp").is_dir(), reason="xllamacpp is not installed"),
]
LIMIT = 20


def llmjobs(*arguments: object) -> str:
    """VLLM changes the whole process, so the command has one of its own, as a user's has."""
    done = subprocess.run(
        [sys.executable, "-m", "llmjobs", *map(str, arguments)],
        text=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_four_engines_side_by_side(tmp_path: Path, llama_server: str, served_gguf: Path) -> None:
    models = [
        {"id": "llmjobs/demo-base", "name": "on-transformers", "device": "cpu", "dtype": "float32"},
        {"id": str(served_gguf), "name": "on-llama-cpp", "device": "cpu", "kv_cache": "f32"},
        {"id": "llmjobs/demo-base", "name": "on-vllm", "engine": "vllm", "dtype": "float32"},
        {"model": "demo", "name": "behind-a-server", "endpoint": llama_server, "chat_template": False},
    ]
    benchmark = {"name": "demo", "subjects": SUBJECTS, "limit": LIMIT}
    study = tmp_path / "four.yaml"
    study.write_text(yaml.safe_dump({"models": models, "eval": {"benchmarks": [benchmark]}}))
    shown = llmjobs("eval", study, "--results", tmp_path)
    folder = tmp_path / "four"
    letters = {}
    for model in models:
        name = str(model["name"])
        assert name in shown
        rows = [one for path in sorted((folder / "eval" / name).rglob("records.jsonl")) for one in read_records(path)]
        letters[name] = {(one["subject"], one["doc_id"]): one["prediction"] for one in rows}
        assert len(letters[name]) == LIMIT * len(SUBJECTS)
    reference = letters.pop("on-transformers")
    for name, found in letters.items():
        assert found == reference, name
    engines = {name: json.loads((folder / "eval" / name / "model.json").read_text())["engine"] for name in letters}
    assert engines == {"on-llama-cpp": "llama.cpp", "on-vllm": "vllm", "behind-a-server": "endpoint"}

    llmjobs("report", folder)
    text = subprocess.run(["pdftotext", "-layout", folder / "report.pdf", "-"], text=True, capture_output=True).stdout
    for word in ("on-transformers", *letters, "llama.cpp", "vllm", "endpoint"):
        assert word in text
    summary = json.loads((folder / "summary.json").read_text())["eval"]["models"]
    assert len({one["benchmarks"][0]["acc"] for one in summary}) == 1
