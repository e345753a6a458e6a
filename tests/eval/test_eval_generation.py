"""Generated answers in the eval job: each question's own settings, any architecture, and values that are no numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llmjobs.cli import main
from llmjobs.work.journal import read_records

ROOT = Path(__file__).parents[2]


def write_study(folder: Path, model: Path, output_type: str, questions: list[str], **more) -> Path:
    rows = [{"question": text, "answer": "A", "a": "one", "b": "two"} for text in questions]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    custom = {"file": "q.jsonl", "name": "own", "question": "question", "answer": "answer"}
    if output_type == "loglikelihood":
        custom["choices"] = ["a", "b"]
    path = folder / "study.yaml"
    models = [{"id": str(model), "name": "m", "dtype": "float32", **more}]
    section = {"benchmarks": [custom], "batch_tokens": 512, "threads": 1}
    path.write_text(yaml.safe_dump({"models": models, "eval": section}))
    return path


def run(*arguments, expect=0) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert ended.value.code == expect


def records_of(results: Path) -> list[dict]:
    return [record for path in sorted(results.rglob("records.jsonl")) for record in read_records(path)]


@pytest.fixture(scope="module")
def damaged(llama, tmp_path_factory) -> Path:
    """The random Llama with one weight that is not a number."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("damaged") / "llama"
    folder.mkdir()
    for file in llama.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "up_proj" in name)
    weights[name][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("output_type", ["loglikelihood", "generate_until"])
def test_a_damaged_model_ends_in_one_line_and_records_that_say_why(damaged, tmp_path, capsys, output_type):
    study = write_study(tmp_path, damaged, output_type, ["Which?", "What else?"])
    run("eval", study, "--results", tmp_path / "r", expect=3)
    shown = "".join(capsys.readouterr())
    assert "Traceback" not in shown
    assert "ValueError" not in shown
    records = records_of(tmp_path / "r")
    assert [record["status"] for record in records] == ["error", "error"]
    assert all("not a number" in record["error"] and "damaged" in record["error"] for record in records)


def test_a_question_keeps_its_room_beside_longer_ones(llama, tmp_path):
    """Sixteen answers together took the first question's length, and its neighbours' prompts were cut for it."""
    short, long = "Short?", "Long? " + "word " * 150
    together, alone = tmp_path / "together", tmp_path / "alone"
    for folder in (together, alone):
        folder.mkdir()
    run("eval", write_study(together, llama, "generate_until", [short, long]), "--results", together / "r")
    run("eval", write_study(alone, llama, "generate_until", [long]), "--results", alone / "r")
    assert records_of(together / "r")[1]["text"] == records_of(alone / "r")[0]["text"]
    assert not any("cut_tokens" in record for record in records_of(together / "r"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mamba", "qwen3_next"])
def test_a_recurrent_model_killed_at_a_step_goes_on_to_equal_bytes(kind, llama, tmp_path):
    from transformers import AutoTokenizer

    sys.path.append(str(ROOT / "tests/engines"))
    from every_causal_lm import tiny_model

    tokenizer = AutoTokenizer.from_pretrained(llama)
    folder = tmp_path / "model"
    tiny_model(kind, vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    study = write_study(tmp_path, folder, "generate_until", [f"Question {n} {'x' * (n % 7)}?" for n in range(50)])
    command = [sys.executable, "-m", "llmjobs", "eval", str(study), "--results"]
    quiet = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "capture_output": True, "check": False, "timeout": 600}
    assert subprocess.run([*command, str(tmp_path / "whole")], **quiet).returncode == 0
    stopping = (
        "import os; from llmjobs.eval import job; step = job.GenerationWork.step\n"
        "job.GenerationWork.step = lambda work, at: os._exit(9) if at == 2 else step(work, at)\n"
        f"from llmjobs.cli import main; main(['eval', {str(study)!r}, '--results', {str(tmp_path / 'cut')!r}])"
    )
    assert subprocess.run([sys.executable, "-c", stopping], **quiet).returncode == 9
    assert subprocess.run([*command, str(tmp_path / "cut")], **quiet).returncode == 0
    parts = [next((tmp_path / name).rglob("records.jsonl")).read_bytes() for name in ("whole", "cut")]
    assert parts[0] == parts[1]
    recorded = json.loads(next((tmp_path / "cut").rglob("model.json")).read_text())
    assert recorded["decoding"]["path"] in ("padded", "shared")
