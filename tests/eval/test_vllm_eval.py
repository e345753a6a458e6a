"""The eval job on vLLM: the answers of transformers, equal bytes after kills, one-line errors."""

import json
import os
import random
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmjobs.cli import main
from llmjobs.exit_codes import EXIT_UNITS_FAILED, EXIT_USAGE
from llmjobs.work.journal import read_records

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed (tools/vllm_environment.sh)")
OURS = {"id": "llmjobs/demo-base", "name": "ours", "engine": "vllm", "dtype": "float32"}


def write_study(path: Path, models: list[dict[str, Any]]) -> Path:
    rows = [{"question": f"Say {n} {'x' * (n % 7)}", "answer": "A"} for n in range(40)]
    (path.parent / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmarks = [
        {"name": "demo", "subjects": ["alphabet_order", "two_digit_sums"], "limit": 60},
        {"file": "q.jsonl", "name": "own", "question": "question", "answer": "answer"},
    ]
    path.write_text(
        yaml.safe_dump({"models": models, "eval": {"benchmarks": benchmarks, "threads": 1, "batch_tokens": 1024}})
    )
    return path


def run(study: Path, results: Path, **options: Any) -> subprocess.Popen[str]:
    """VLLM changes the whole process, so each run has one of its own, as a user's has."""
    return subprocess.Popen(
        [sys.executable, "-m", "llmjobs", "eval", str(study), "--results", str(results)],
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        **options,
    )


def records_of(results: Path) -> dict[str, list[dict[str, Any]]]:
    """Records by file; of one that is being written, the lines that are complete."""
    return {
        str(p.relative_to(results)): read_records(p, allow_torn=True) for p in sorted(results.rglob("records.jsonl"))
    }


def bytes_of(results: Path) -> dict[str, bytes]:
    return {str(p.relative_to(results / "s")): p.read_bytes() for p in sorted(results.rglob("records.jsonl"))}


@needs_vllm
def test_the_answers_of_transformers_and_the_same_bytes_after_kills(tmp_path: Path) -> None:
    theirs = {"id": "llmjobs/demo-base", "name": "theirs", "dtype": "float32"}
    study = write_study(tmp_path / "s.yaml", [OURS, theirs])
    whole = run(study, tmp_path / "whole", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    shown = "".join(whole.communicate())
    assert whole.returncode == 0, shown
    for noise in ("INFO", "WARNING", "Gloo", "vllm.", "Loading safetensors", "FutureWarning"):
        assert noise not in shown
    found = records_of(tmp_path / "whole")
    for path, records in found.items():
        if "/ours/" not in path:
            continue
        by_id = {one["doc_id"]: one for one in found[path.replace("/ours/", "/theirs/")]}
        for mine in records:
            other = by_id[mine["doc_id"]]
            assert mine["prediction"] == other["prediction"] and mine.get("text") == other.get("text")
            assert mine["loglikelihoods"] == pytest.approx(other["loglikelihoods"], abs=1e-4)
    model = json.loads(next((tmp_path / "whole").rglob("ours/model.json")).read_text())
    assert (model["engine"], model["scoring_path"], model["attention"]) == ("vllm", "shared", "CPU_ATTN")

    rng, killed = random.Random(3), 0
    alone = write_study(tmp_path / "s.yaml", [OURS])
    for _ in range(2):
        process = run(alone, tmp_path / "cut", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        size = sum(map(len, records_of(tmp_path / "cut").values()))
        while process.poll() is None and sum(map(len, records_of(tmp_path / "cut").values())) <= size:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.1)
        process.kill()
        killed += process.wait() != 0
    assert run(alone, tmp_path / "cut", stdout=subprocess.DEVNULL).wait() == 0
    assert killed
    ours = {path: data for path, data in bytes_of(tmp_path / "whole").items() if "/ours/" in path}
    assert len(ours) == 3 and bytes_of(tmp_path / "cut") == ours


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed")
def test_without_vllm_each_unit_says_how_to_install_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path / "s.yaml", [OURS])
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(study), "--results", str(tmp_path / "r")])
    shown = "".join(capsys.readouterr())
    assert ended.value.code == EXIT_UNITS_FAILED and "Traceback" not in shown
    assert "engine: vllm needs the vllm package; run pip install 'llmjobs[vllm]'" in shown


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"engine": "vlm"}, "'vlm' is not one of auto, transformers, llama.cpp"),
        ({"engine": "vllm", "quantization": "4bit"}, "vLLM runs a checkpoint as it is stored"),
        ({"engine": "vllm", "device": "mps"}, "vLLM does not support Apple's GPU"),
        ({"engine": "vllm", "device_map": "auto"}, "use tensor_parallel_size"),
        ({"engine": "vllm", "kv_cache": "q8_0"}, "gpu_layers and kv_cache only apply to llama.cpp"),
        ({"engine": "vllm", "tensor_parallel_size": 0}, "tensor_parallel_size"),
        ({"engine": "vllm", "gpu_memory_utilization": 1.5}, "gpu_memory_utilization"),
        ({"tensor_parallel_size": 2}, "only apply to vLLM; remove them or set engine: vllm"),
        ({"max_model_len": 512}, "only apply to vLLM; remove them or set engine: vllm"),
    ],
)
def test_settings_are_checked_in_one_line(
    model: dict[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path / "s.yaml", [{"id": "o/n"} | model])
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(study), "--results", str(tmp_path / "r")])
    shown = capsys.readouterr().err
    assert ended.value.code == EXIT_USAGE and told in shown and "Traceback" not in shown
