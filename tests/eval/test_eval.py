"""The eval job: correct results, restart at any moment, one failing model, and the summary."""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import cache, lru_cache
from pathlib import Path

import pytest
import yaml

from llmjobs.cli import main
from llmjobs.exit_codes import EXIT_RESUMABLE
from llmjobs.terminal_text import plural
from llmjobs.work.journal import read_records

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(tmp_path, llama, mmlu_rows):
    """Writes a manifest and returns its path."""

    def write(**changes) -> Path:
        benchmark = {
            "name": "mmlu",
            "subjects": ["astronomy", "business_ethics"],
            "num_fewshot": 2,
            "data": str(mmlu_rows),
        }
        content = {
            "models": [{"id": str(llama), "name": "tiny", "dtype": "float32"}],
            "eval": {"benchmarks": [benchmark | changes.pop("benchmark", {})], "batch_tokens": 512, "threads": 1},
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(content | changes))
        return path

    return write


def run(*arguments, expect=0) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert ended.value.code == expect


def records_of(results: Path) -> dict[str, bytes]:
    return {str(p.relative_to(results)): p.read_bytes() for p in sorted(results.rglob("records.jsonl"))}


def test_records_and_summary(study, tmp_path, capsys):
    run("eval", study(), "--results", tmp_path / "r", "--show")
    shown = capsys.readouterr().out
    run_folder = tmp_path / "r" / "study"
    records = [r for p in run_folder.rglob("records.jsonl") for r in read_records(p)]
    assert len(records) == 60
    for record in records:
        values = record["loglikelihoods"]
        assert record["prediction"] == "ABCD"[values.index(max(values))]
        assert record["correct"] == (record["prediction"] == record["gold"])
        assert record["status"] == "ok"
    summary = json.loads((run_folder / "summary.json").read_text())["eval"]
    model = summary["models"][0]
    right = sum(r["correct"] for r in records)
    assert model["benchmarks"][0]["correct"] == right
    assert model["benchmarks"][0]["acc"] == pytest.approx(right / 60, abs=1e-6)
    assert model["gpu_s"] is None
    assert "CPU" in model["gpu_s_reason"]
    assert model["real_s"] > 0 < model["user_s"]
    assert summary["status"] == "complete"
    assert shown.count("question ") >= 60
    assert ", right" in shown and ", wrong (right: " in shown
    docs = read_records(run_folder / "docs/mmlu.astronomy.jsonl")
    assert [d["doc_id"] for d in docs] == list(range(30))
    written = yaml.safe_load((run_folder / "manifest.yaml").read_text())
    assert written["models"][0]["quantization"] == "none"


@cache
def loaded(folder: Path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return AutoTokenizer.from_pretrained(folder), model.eval()


@lru_cache(maxsize=1)
def plain_logprobs(folder: Path, ids: tuple[int, ...]):
    """Log-probabilities of what follows each token, by one unbatched forward, nothing shared."""
    import torch

    _, model = loaded(folder)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].log_softmax(-1)


def plain_forward(folder: Path, context: str, continuations: list[str]) -> list[float]:
    """Log-likelihoods of continuations; those that differ in their last token alone take the same forward."""
    tokenizer, _ = loaded(folder)
    start = len(tokenizer(context)["input_ids"])
    values = []
    for continuation in continuations:
        whole = tokenizer(context + continuation)["input_ids"]
        logprobs = plain_logprobs(folder, tuple(whole[:-1]))
        values.append(sum(float(logprobs[at - 1, whole[at]]) for at in range(start, len(whole))))
    return values


def original_prompt(rows: list[list[str]], shots: list[list[str]], subject: str) -> str:
    def block(row):
        return (
            row[0]
            + "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", row[1:5], strict=True))
            + "\nAnswer:"
        )

    header = f"The following are multiple choice questions (with answers) about  {subject.replace('_', ' ')}.\n\n"
    return header + "".join(f"{block(shot)} {shot[5]}\n\n" for shot in shots) + block(rows)


def read_original(data: Path, subject: str) -> list[list[list[str]]]:
    """Test and dev rows of a subject in the original CSV layout."""
    files = (data / split / f"{subject}_{split}.csv" for split in ("test", "dev"))
    return [list(csv.reader(io.StringIO(path.read_text("utf-8"), newline=""))) for path in files]


@pytest.mark.parametrize("subject", ["astronomy", "business_ethics"])
def test_real_mmlu_equals_a_plain_forward(subject, tmp_path, shared_data, tmp_path_factory):
    from random_llama import make_llama

    model = make_llama(tmp_path_factory.mktemp("m") / "long", length=8192)
    data = shared_data / "mmlu_original_layout"
    manifest = tmp_path / "real.yaml"
    manifest.write_text(
        yaml.safe_dump(
            {
                "models": [{"id": str(model), "name": "m", "dtype": "float32"}],
                "eval": {
                    "batch_tokens": 2048,
                    "benchmarks": [
                        {
                            "name": "mmlu",
                            "subjects": [subject],
                            "num_fewshot": 5,
                            "prompt": "original",
                            "data": str(data),
                            "limit": 8,
                        }
                    ],
                },
            }
        )
    )
    run("eval", manifest, "--results", tmp_path / "r")
    test, dev = read_original(data, subject)
    for record in read_records(tmp_path / f"r/real/eval/m/mmlu.{subject}/records.jsonl"):
        prompt = original_prompt(test[record["doc_id"]], dev, subject)
        expected = plain_forward(model, prompt, [f" {letter}" for letter in "ABCD"])
        assert record["loglikelihoods"] == pytest.approx(expected, abs=1e-4)
        assert record["prediction"] == "ABCD"[expected.index(max(expected))]


def command(manifest: Path, results: Path) -> list:
    return [sys.executable, "-m", "llmjobs", "eval", manifest, "--results", results]


def size_of(results: Path) -> int:
    return sum(map(len, records_of(results).values()))


@pytest.mark.slow
def test_the_same_bytes_after_kills(study, tmp_path):
    manifest = study(benchmark={"num_fewshot": 5})
    run("eval", manifest, "--results", tmp_path / "unbroken")
    rng, stopped = random.Random(1), 0
    for attempt in range(3):
        process = subprocess.Popen(
            command(manifest, tmp_path / "killed"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        size = size_of(tmp_path / "killed")
        while process.poll() is None and size_of(tmp_path / "killed") <= size:
            time.sleep(0.005)
        if process.poll() is None and rng.random() < 0.9:
            os.kill(process.pid, signal.SIGKILL if attempt else signal.SIGTERM)
        process.communicate()
        stopped += process.returncode != 0
        if not attempt:
            assert process.returncode in (EXIT_RESUMABLE, 0)
    run("eval", manifest, "--results", tmp_path / "killed")
    assert records_of(tmp_path / "killed") == records_of(tmp_path / "unbroken")
    assert stopped


def test_the_script_gives_the_same_records_as_the_command(study, tmp_path):
    manifest = study()
    run("eval", manifest, "--results", tmp_path / "a")
    script = [sys.executable, ROOT / "jobs/eval.py", manifest, "--results", tmp_path / "b"]
    assert subprocess.run(script, capture_output=True).returncode == 0
    assert records_of(tmp_path / "a") == records_of(tmp_path / "b")


def test_a_missing_model_fails_alone(study, tmp_path, llama, capsys):
    models = [{"id": str(tmp_path / "nowhere"), "name": "gone"}, {"id": str(llama), "name": "tiny", "dtype": "float32"}]
    run("eval", study(models=models), "--results", tmp_path / "r", expect=3)
    out = capsys.readouterr()
    assert "there is no folder" in out.out
    assert len(read_records(tmp_path / "r/study/eval/tiny/mmlu.astronomy/records.jsonl")) == 30
    summary = json.loads((tmp_path / "r/study/summary.json").read_text())["eval"]
    assert [f["unit"] for f in summary["units_failed"]] == [
        "eval/gone/mmlu.astronomy",
        "eval/gone/mmlu.business_ethics",
    ]


def test_a_changed_setting_or_model_is_refused_and_fresh_keeps_the_old(study, tmp_path, llama, capsys):
    manifest = study()
    run("eval", manifest, "--results", tmp_path / "r", "--limit", "5")
    run("eval", manifest, "--results", tmp_path / "r", "--limit", "6", expect=1)
    assert "questions was 5 and is now 6" in capsys.readouterr().err
    run("eval", manifest, "--results", tmp_path / "r", "--limit", "5", "--set", "models[0].dtype=bfloat16", expect=1)
    assert "dtype_asked was 'float32' and is now 'bfloat16'" in capsys.readouterr().err
    run("eval", manifest, "--results", tmp_path / "r", "--limit", "6", "--fresh")
    assert len(read_records(tmp_path / "r/study.1/eval/tiny/mmlu.astronomy/records.jsonl")) == 5
    assert len(read_records(tmp_path / "r/study/eval/tiny/mmlu.astronomy/records.jsonl")) == 6


def test_dry_run_writes_nothing(study, tmp_path, capsys):
    run("eval", study(), "--results", tmp_path / "r", "--dry-run")
    assert "mmlu.astronomy  30 questions  to do" in capsys.readouterr().out
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_quantized_on_the_cpu_is_read_off_the_layers(study, tmp_path, llama, quantization):
    models = [{"id": str(llama), "name": "q", "device": "cpu", "quantization": quantization}]
    run("eval", study(models=models), "--results", tmp_path / "r", "--limit", "4")
    recorded = json.loads((tmp_path / "r/study/eval/q/model.json").read_text())
    assert (recorded["device"], recorded["quantization"]) == ("cpu", quantization)
    records = read_records(tmp_path / "r/study/eval/q/mmlu.astronomy/records.jsonl")
    assert all(r["status"] == "ok" for r in records)


def test_course_form_counts_unreadable_replies(study, tmp_path, capsys):
    benchmark = {"prompt": "course", "output_type": "generate_until", "num_fewshot": 0}
    run("eval", study(benchmark=benchmark), "--results", tmp_path / "r")
    records = [r for p in (tmp_path / "r").rglob("records.jsonl") for r in read_records(p)]
    unparsed = [r for r in records if r["status"] == "unparsed"]
    assert len(records) == 60
    assert unparsed, "a random model writes letters by chance only"
    assert all(r["prediction"] is None and r["correct"] is False and "text" in r for r in unparsed)
    assert f"{plural(len(unparsed), 'reply', 'replies')} could not be parsed" in capsys.readouterr().out
