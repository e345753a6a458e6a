"""The endpoint engine against real servers: llama-server inside xllamacpp, vLLM, and llmjobs' own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from gguf_models import write_llama

from llmjobs.cli import main
from llmjobs.demo import DEMO_MODELS
from llmjobs.work.journal import read_records

CACHE = Path("~/.cache/llmjobs").expanduser()
XLLAMACPP = CACHE / "xllamacpp"
VLLM = CACHE / "vllm/bin/python"
LLAMA_SERVER = """
import sys
sys.path.insert(0, sys.argv[1])
import xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.port, settings.model_alias = sys.argv[2], int(sys.argv[3]), {"demo"}
settings.n_ctx, settings.n_parallel, settings.warmup = 2048, 2, False
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(settings)
sys.stdin.read()
"""
SUBJECTS = ["alphabet_order", "far_country", "repeat_words"]
"""Without digits, which the GGUF file's own pre-tokenizer cuts in another way."""
needs_xllamacpp = pytest.mark.skipif(
    not (XLLAMACPP / "xllamacpp").is_dir(),
    reason="xllamacpp is not there: pip install --no-deps --target ~/.cache/llmjobs/xllamacpp xllamacpp",
)
needs_vllm = pytest.mark.skipif(
    not VLLM.exists(), reason="vLLM is not there: tools/vllm_environment.sh ~/.cache/llmjobs/vllm"
)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(command: list[str], port: int, log: Path, seconds: float) -> Iterator[str]:
    """Start a server and wait until it lists its models."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=stream, stderr=stream, env=environment, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}/v1"
    try:
        deadline = time.monotonic() + seconds
        while True:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            try:
                with urllib.request.urlopen(f"{url}/models", timeout=2):
                    break
            except OSError:
                time.sleep(0.3)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def served_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model as an F32 GGUF file."""
    folder = tmp_path_factory.mktemp("llama_server")
    return write_llama(Path(DEMO_MODELS["demo-base"]), folder / "demo.gguf", pre="llama-bpe")


@pytest.fixture(scope="module")
def llama_server(served_gguf: Path) -> Iterator[str]:
    """The file, served by llama-server."""
    port = free_port()
    command = [sys.executable, "-c", LLAMA_SERVER, str(XLLAMACPP), str(served_gguf), str(port)]
    with serving(command, port, served_gguf.with_name("log.txt"), 60) as url:
        yield url


def run(folder: Path, models: list[dict[str, Any]], expect: int = 0, **benchmark: Any) -> Path:
    path = folder / "study.yaml"
    benchmark = {"name": "demo", "subjects": SUBJECTS, "limit": 12} | benchmark
    path.write_text(yaml.safe_dump({"models": models, "eval": {"benchmarks": [benchmark]}}))
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(path), "--results", str(folder / "r")])
    assert ended.value.code == expect
    return folder / "r/study/eval"


def answers(folder: Path, model: str) -> dict[tuple[str, int], dict[str, Any]]:
    rows = (one for path in sorted((folder / model).rglob("records.jsonl")) for one in read_records(path))
    return {(one["subject"], one["doc_id"]): one for one in rows}


def compare(folder: Path, nats: float) -> None:
    """The server's letters and replies are those of transformers on the same weights, its values within ``nats``."""
    here, there = answers(folder, "here"), answers(folder, "there")
    assert here.keys() == there.keys() and len(here) == 12 * len(SUBJECTS)
    for key, one in there.items():
        assert one["prediction"] == here[key]["prediction"], key
        if one["loglikelihoods"] is not None:
            assert one["loglikelihoods"] == pytest.approx(here[key]["loglikelihoods"], abs=nats), key


HERE = {"id": "llmjobs/demo-base", "name": "here", "device": "cpu", "dtype": "float32"}


@needs_xllamacpp
def test_llama_servers_echo_is_refused_and_its_next_tokens_give_the_letters_of_transformers(tmp_path, llama_server):
    there = {"model": "demo", "name": "there", "endpoint": llama_server, "chat_template": False}
    folder = run(tmp_path, [HERE, there])
    compare(folder, 0.02)
    found = json.loads((folder / "there/model.json").read_text())
    assert found["scoring_path"] == "top_logprobs"
    assert "not echo: its log-probabilities are not those of the prompt" in found["probe"]["reason"]
    assert found["parameters"] and found["architecture"] == "server (llamacpp)"


@needs_xllamacpp
def test_llama_server_cannot_score_whole_options_and_says_what_to_do(tmp_path, llama_server, capsys):
    rows = [{"q": "The cat sat on the", "a": "old mat", "b": "new hat", "answer": "A"} for _ in range(3)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    there = {"model": "demo", "name": "there", "endpoint": llama_server, "chat_template": False}
    own = {"file": "q.jsonl", "name": "own", "question": "q", "choices": ["a", "b"], "answer": "answer"}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"models": [there], "eval": {"benchmarks": [own | {"prompt": "texts"}]}}))
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(path), "--results", str(tmp_path / "r")])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("failed:"))
    assert ended.value.code == 3
    assert "log-probabilities of the next token only" in line and "llama.cpp" in line and "generate_until" in line


@needs_xllamacpp
def test_a_chat_with_llama_server_is_evaluated_too(tmp_path, llama_server):
    there = {"model": "demo", "name": "there", "endpoint": llama_server}
    folder = run(tmp_path, [there], subjects=["repeat_words"])
    rows = answers(folder, "there").values()
    assert len(rows) == 12 and all(one["status"] != "error" and one["new_tokens"] for one in rows)


def test_llmjobs_serve_answers_and_its_missing_log_probabilities_are_no_score(tmp_path, capsys):
    port = free_port()
    command = [sys.executable, "-m", "llmjobs", "serve", "llmjobs/demo-base", "--port", str(port)]
    with serving(command, port, tmp_path / "log.txt", 120) as url:
        there = {"model": "demo-base", "name": "there", "endpoint": url}
        folder = run(tmp_path, [there], expect=3, subjects=["repeat_words", "far_country"])
    rows = answers(folder, "there")
    assert {subject for subject, _ in rows} == {"repeat_words"} and len(rows) == 12
    assert "no log-probabilities that can be trusted" in capsys.readouterr().out


@needs_vllm
@pytest.mark.slow
def test_vllm_is_accepted_and_gives_the_values_of_transformers(tmp_path):
    port = free_port()
    model = DEMO_MODELS["demo-base"]
    command = [
        str(VLLM),  # not the command vllm, which looks for a package of that name; the CPU build has another
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(model),
        "--served-model-name",
        "demo",
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
    ]
    command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "8"]
    with serving(command, port, tmp_path / "log.txt", 420) as url:
        there = {"model": "demo", "name": "there", "endpoint": url, "chat_template": False}
        folder = run(tmp_path, [HERE, there])
    compare(folder, 2e-3)
    found = json.loads((folder / "there/model.json").read_text())
    assert found["scoring_path"] == "echo"
    assert "agree with generation" in found["probe"]["reason"]
