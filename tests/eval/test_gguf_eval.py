"""The eval job on GGUF files: the answers of transformers, equal bytes after kills, one-line errors."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from gguf_models import write_llama
from transformers import AutoTokenizer

from llmjobs.cli import main
from llmjobs.demo import DEMO_MODELS, rows, subjects
from llmjobs.demo.words import prompt
from llmjobs.engines.llama_cpp.engine import load_tokenizer, locate
from llmjobs.engines.llama_cpp.library import is_installed
from llmjobs.exit_codes import EXIT_UNITS_FAILED, EXIT_USAGE
from llmjobs.manifest.models import ModelSpec
from llmjobs.work.journal import read_records

needs_binding = pytest.mark.skipif(not is_installed(), reason="llama-cpp-python is not installed")


@pytest.fixture(scope="session")
def gguf(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random Llama as an F32 GGUF file."""
    return write_llama(llama, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def run(*arguments: object, expect: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert ended.value.code == expect


def write_study(path: Path, models: list[dict[str, Any]], benchmark: dict[str, Any], **section: Any) -> Path:
    content = {"models": models, "eval": {"benchmarks": [benchmark], "threads": 1, "batch_tokens": 256, **section}}
    path.write_text(yaml.safe_dump(content))
    return path


def mmlu(data: Path, **more: Any) -> dict[str, Any]:
    return {
        "name": "mmlu",
        "subjects": ["astronomy", "business_ethics"],
        "num_fewshot": 2,
        "data": str(data),
        **more,
    }


def generated(folder: Path, count: int) -> dict[str, Any]:
    rows = [{"question": f"Question {n} {'x' * (n % 7)}?", "answer": "A"} for n in range(count)]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"file": "q.jsonl", "name": "own", "question": "question", "answer": "answer"}


def both(llama: Path, gguf: Path) -> list[dict[str, Any]]:
    return [
        {"id": str(gguf), "name": "gguf", "device": "cpu", "kv_cache": "f32"},
        {"id": str(llama), "name": "transformers", "device": "cpu", "dtype": "float32"},
    ]


def records_of(results: Path) -> dict[str, list[dict[str, Any]]]:
    """Records by file; of one that is being written, the lines that are complete."""
    return {
        str(p.relative_to(results)): read_records(p, allow_torn=True) for p in sorted(results.rglob("records.jsonl"))
    }


def bytes_of(results: Path) -> dict[str, bytes]:
    return {str(p.relative_to(results / "s")): p.read_bytes() for p in sorted(results.rglob("records.jsonl"))}


def pairs(results: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    found = records_of(results)
    mine = [record for path, records in found.items() if "/gguf/" in path for record in records]
    theirs = [record for path, records in found.items() if "/transformers/" in path for record in records]
    key = lambda record: (record["benchmark"], record["subject"], record["doc_id"])  # noqa: E731
    return list(zip(sorted(mine, key=key), sorted(theirs, key=key), strict=True))


@needs_binding
def test_letters_equal_those_of_transformers(llama, gguf, mmlu_rows, tmp_path):
    study = write_study(tmp_path / "s.yaml", both(llama, gguf), mmlu(mmlu_rows))
    run("eval", study, "--results", tmp_path / "r")
    found = pairs(tmp_path / "r")
    assert len(found) == 60
    for mine, theirs in found:
        assert mine["prediction"] == theirs["prediction"]
        assert mine["loglikelihoods"] == pytest.approx(theirs["loglikelihoods"], abs=1e-3)
    model = json.loads(next((tmp_path / "r").rglob("gguf/model.json")).read_text())
    assert (model["engine"], model["quantization"], model["kv_cache"]) == ("llama.cpp", "none", "f32")
    assert model["probe"]["path"] == model["scoring_path"] == "shared"
    versions = json.loads(next((tmp_path / "r").rglob("environment.json")).read_text())["versions"]
    assert versions["llama_cpp_python"]


@needs_binding
def test_real_questions(llama, gguf, shared_data, tmp_path):
    benchmark = mmlu(shared_data / "mmlu", subjects=["astronomy"], limit=25, num_fewshot=5)
    study = write_study(tmp_path / "s.yaml", both(llama, gguf), benchmark)
    run("eval", study, "--results", tmp_path / "r")
    found = pairs(tmp_path / "r")
    assert len(found) == 25
    assert all(mine["prediction"] == theirs["prediction"] for mine, theirs in found)


@needs_binding
def test_replies_equal_those_of_transformers(llama, gguf, tmp_path):
    study = write_study(tmp_path / "s.yaml", both(llama, gguf), generated(tmp_path, 20))
    run("eval", study, "--results", tmp_path / "r")
    for mine, theirs in pairs(tmp_path / "r"):
        assert mine["new_tokens"]
        assert (mine["text"], mine["finish_reason"]) == (theirs["text"], theirs["finish_reason"])


@needs_binding
@pytest.mark.parametrize(("kind", "stored"), [("F32", "none"), ("F16", "none"), ("Q4_K_M", "Q5_0 75%, Q8_0 25%")])
def test_a_demo_model_is_written_as_a_file_and_answers_alike(tmp_path, monkeypatch, kind, stored):
    monkeypatch.setenv("LLMJOBS_CACHE", str(tmp_path / "cache"))
    models = [
        {"id": f"llmjobs/demo-base:{kind}", "name": "gguf", "device": "cpu", "kv_cache": "f32"},
        {"id": "llmjobs/demo-base", "name": "transformers", "device": "cpu", "dtype": "float32"},
    ]
    study = write_study(tmp_path / "s.yaml", models, {"name": "demo", "limit": 6})
    run("eval", study, "--results", tmp_path / "r")
    found = pairs(tmp_path / "r")
    assert len(found) == 60
    same = [
        mine["text"] == theirs["text"] if "text" in mine else mine["prediction"] == theirs["prediction"]
        for mine, theirs in found
    ]
    assert sum(same) / 60 > 0.9 if kind == "Q4_K_M" else all(same)
    model = json.loads(next((tmp_path / "r").rglob("gguf/model.json")).read_text())
    assert model["quantization"] == stored
    assert [path.name for path in (tmp_path / "cache").rglob("*.gguf")] == [f"demo-base-{kind}.gguf"]


@needs_binding
def test_a_demo_file_has_the_tokens_of_the_demo(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMJOBS_CACHE", str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODELS["demo-base"])
    spec = ModelSpec.model_validate({"id": "llmjobs/demo-base:F32", "name": "m", "device": "cpu"})
    mine = load_tokenizer(spec, locate(spec))
    asked = [row for subject in subjects() for split in ("dev", "test") for row in rows(subject, split)]
    texts = [f"{prompt(row['question'], row.get('choices') or ())} {row['answer']}\n" for row in asked]
    texts.append("\n".join(texts[:5]))  # as with shots
    for text in texts:
        assert mine(text)["input_ids"] == tokenizer(text)["input_ids"]
    for text in ("Alice was beginning to get very tired", "é 日本 12345\r\n\t  x", " zebra , it 's"):
        assert mine.decode(mine(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("llmjobs/demo-base:Q4", "'llmjobs/demo-base:Q4' is not one of llmjobs/demo-base:F32, "),
        ("llmjobs/demo-bass:Q8_0", "did you mean 'llmjobs/demo-base:Q8_0'?"),
    ],
)
def test_an_unknown_demo_file_is_one_line(tmp_path, capsys, model, told):
    study = write_study(tmp_path / "s.yaml", [{"id": model, "name": "m"}], {"name": "demo", "limit": 2})
    run("eval", study, "--results", tmp_path / "r", expect=EXIT_UNITS_FAILED)
    shown = " ".join("".join(capsys.readouterr()).split())
    assert "Traceback" not in shown
    assert told in shown or (not is_installed() and "llmjobs[gguf]" in shown)


@needs_binding
@pytest.mark.parametrize("kind", ["loglikelihood", "generated"])
def test_the_same_bytes_after_kills(gguf, mmlu_rows, tmp_path, kind):
    benchmark = mmlu(mmlu_rows, num_fewshot=5) if kind == "loglikelihood" else generated(tmp_path, 60)
    models = [{"id": str(gguf), "name": "gguf", "device": "cpu"}]
    study = write_study(tmp_path / "s.yaml", models, benchmark, batch_tokens=128)
    run("eval", study, "--results", tmp_path / "whole")
    rng = random.Random(3)
    killed = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-m", "llmjobs", "eval", str(study), "--results", str(tmp_path / "cut")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        size = sum(map(len, records_of(tmp_path / "cut").values()))
        while process.poll() is None and sum(map(len, records_of(tmp_path / "cut").values())) <= size:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        process.kill()
        killed += process.wait() != 0
    run("eval", study, "--results", tmp_path / "cut")
    assert killed
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


@needs_binding
def test_another_cache_format_is_another_run(gguf, mmlu_rows, tmp_path, capsys):
    models = [{"id": str(gguf), "name": "gguf", "device": "cpu", "kv_cache": "f32"}]
    study = write_study(tmp_path / "s.yaml", models, mmlu(mmlu_rows, limit=2))
    run("eval", study, "--results", tmp_path / "r")
    write_study(study, [models[0] | {"kv_cache": "f16"}], mmlu(mmlu_rows, limit=2))
    run("eval", study, "--results", tmp_path / "r", expect=1)
    assert "kv_cache" in capsys.readouterr().err


ERRORS = {
    "a truncated file": (lambda p, g: p.write_bytes(g.read_bytes()[:-9000]), "truncated"),
    "an empty file": (lambda p, g: p.write_bytes(b""), "is empty"),
    "no GGUF file": (lambda p, g: p.write_bytes(b"PK\3\4" + g.read_bytes()), "is not a GGUF file"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_bad_file_is_one_line(gguf, mmlu_rows, tmp_path, capsys, name):
    make, told = ERRORS[name]
    make(tmp_path / "bad.gguf", gguf)
    study = write_study(tmp_path / "s.yaml", [{"id": str(tmp_path / "bad.gguf")}], mmlu(mmlu_rows, limit=2))
    run("eval", study, "--results", tmp_path / "r", expect=EXIT_UNITS_FAILED)
    shown = "".join(capsys.readouterr())
    assert "Traceback" not in shown
    assert told in shown or (not is_installed() and "llmjobs[gguf]" in shown)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"id": "o/n", "engine": "lama.cpp"}, "'lama.cpp' is not one of auto, transformers, llama.cpp"),
        ({"id": "m.gguf", "quantization": "4bit"}, "a GGUF file is already quantized"),
        ({"id": "m.gguf", "dtype": "float16"}, "dtype and device_map only apply to transformers"),
        ({"id": "o/n", "kv_cache": "q8_0"}, "gpu_layers and kv_cache only apply to llama.cpp"),
        ({"id": "m.gguf", "kv_cache": "int8"}, "kv_cache"),
    ],
)
def test_settings_of_another_engine_are_one_line(mmlu_rows, tmp_path, capsys, model, told):
    study = write_study(tmp_path / "s.yaml", [model], mmlu(mmlu_rows))
    run("eval", study, "--results", tmp_path / "r", expect=EXIT_USAGE)
    shown = capsys.readouterr().err
    assert told in shown and "Traceback" not in shown
