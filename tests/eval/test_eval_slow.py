"""Slower proofs of the eval job: a 125 M-parameter model and a demo model on real MMLU; ten kills at random moments."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import yaml
from random_llama import make_llama
from test_eval import original_prompt, plain_forward, read_original, records_of, run
from warm_processes import WarmCommands

from llmjobs.demo import DEMO_MODELS
from llmjobs.work.journal import read_records

pytestmark = pytest.mark.slow
SUBJECTS = ("astronomy", "business_ethics")


@pytest.fixture(scope="module")
def llama_125m(tmp_path_factory) -> Path:
    return make_llama(tmp_path_factory.mktemp("m") / "llama-125m", hidden=768, layers=12, length=4096, spread=0.02)


@pytest.mark.parametrize("which", ["llama-125m", "demo-base"])
def test_real_mmlu_five_shot_equals_a_plain_forward(which, llama_125m, tmp_path, shared_data):
    model = llama_125m if which == "llama-125m" else DEMO_MODELS[which]
    data = shared_data / "mmlu_original_layout"
    benchmark = {"name": "mmlu", "subjects": list(SUBJECTS), "num_fewshot": 5, "prompt": "original", "data": str(data)}
    manifest = tmp_path / "real.yaml"
    manifest.write_text(
        yaml.safe_dump(
            {
                "models": [{"id": str(model), "name": "m", "dtype": "float32", "device": "cpu"}],
                "eval": {"batch_tokens": 2048, "benchmarks": [benchmark | {"limit": 3}]},
            }
        )
    )
    run("eval", manifest, "--results", tmp_path / "r")
    for subject in SUBJECTS:
        test, dev = read_original(data, subject)
        for record in read_records(tmp_path / f"r/real/eval/m/mmlu.{subject}/records.jsonl"):
            prompt = original_prompt(test[record["doc_id"]], dev[: record["num_fewshot"]], subject)
            expected = plain_forward(model, prompt, [f" {letter}" for letter in "ABCD"])
            assert record["loglikelihoods"] == pytest.approx(expected, abs=1e-4)
            assert record["prediction"] == "ABCD"[expected.index(max(expected))]


def test_ten_kills_at_random_moments(tmp_path):
    def size() -> int:
        return sum(p.stat().st_size for p in (tmp_path / "killed").rglob("records.jsonl"))

    with WarmCommands(os.environ) as warm:
        command = ["eval", "smoke", "--set", "eval.benchmarks[0].limit=30", "--results"]
        assert warm.run([*command, "unbroken"], tmp_path).returncode == 0
        whole = sum(len(data) for data in records_of(tmp_path / "unbroken").values())
        rng = random.Random(2026)
        for _ in range(10):
            target = size() + rng.uniform(0.02, 0.08) * whole
            with warm.start([*command, "killed"], tmp_path) as process:
                while process.is_alive and size() < target:
                    time.sleep(rng.uniform(0.001, 0.02))
                assert process.is_alive, "it was to be killed before its end"
                os.kill(process.pid, signal.SIGKILL)
                assert process.end().returncode == -signal.SIGKILL
        assert warm.run([*command, "killed"], tmp_path).returncode == 0
    assert records_of(tmp_path / "killed") == records_of(tmp_path / "unbroken")
    summaries = [json.loads((tmp_path / r / "smoke/summary.json").read_text())["eval"] for r in ("killed", "unbroken")]
    for ours, theirs in zip(summaries[0]["models"], summaries[1]["models"], strict=True):
        assert ours["benchmarks"] == theirs["benchmarks"]
        assert ours["real_s"] > 0
    assert max(m["attempts"] for m in summaries[0]["models"]) >= 2
