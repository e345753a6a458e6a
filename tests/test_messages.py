"""Common mistakes in naming files and models, and the line that reports each: where, what it is, what to do.

Each kind runs the real command in this process. The line names the thing, has a remedy, and holds neither a traceback
nor the name of an exception.
"""
# ruff: noqa: E501 - a table, one kind a line

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from llmjobs.cli import main
from llmjobs.demo import DEMO_MODELS
from llmjobs.errors import plain_reason
from llmjobs.work import memory_kills

TINY = DEMO_MODELS["demo-tiny"]
EXCEPTION = re.compile(
    r"\b(?!LlmjobsError)[A-Z]\w*(?:Error|Exception|Warning)\b|Traceback|<class '|\bpydantic|\bErrno\b"
)
REMEDY = re.compile(
    r"\b(use|take|name|write|give|check|copy|merge|add|remove|keep|fetch|pip install|correct|did you mean|see|let|"
    r"unpack|quote|make|set|begin|talk|put|choose|try|save|leave|start|run|point|export|read it|pass|convert)\b"
)


@dataclass
class Place:
    """Where a case builds what it points at."""

    path: Path

    def model(self, name: str = "model", **config: object) -> Path:
        """A complete model with changes in its config."""
        folder = Path(shutil.copytree(TINY, self.path / name))
        changed = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(changed))
        return folder

    def file(self, name: str, content: str | bytes = "") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def eval(self, model: object, benchmark: str = "{name: demo, limit: 2}") -> list[str]:
        """``llmjobs eval`` on a manifest with one model and one benchmark."""
        text = f"name: r\nmodels:\n  - {{id: {json.dumps(str(model))}, device: cpu, name: m}}\n"
        text += f"eval: {{benchmarks: [{benchmark}]}}\n"
        return ["eval", str(self.file("study.yaml", text)), "--results", str(self.path / "results")]

    def manifest(self, text: str, *more: str) -> list[str]:
        return ["manifest", str(self.file("study.yaml", text)), *more]

    def questions(
        self, name: str, content: str | bytes, keys: str = "question: q, choices: [a, b], answer: right"
    ) -> list[str]:
        """A user's own data set."""
        path = self.file(name, content)
        return self.eval("llmjobs/demo-tiny", f"{{file: {json.dumps(str(path))}, {keys}}}")


Case = tuple[str, Callable[[Place], list[str]], int, str]
"""Name, arguments of the command, exit code, what the line names."""


def weights(place: Place, change: Callable[[dict], dict]) -> list[str]:
    folder = place.model()
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})
    return place.eval(folder)


def without(place: Place, *names: str) -> list[str]:
    folder = place.model()
    for pattern in names:
        for path in folder.glob(pattern):
            path.unlink()
    return place.eval(folder)


def beside(place: Place, name: str, content: str | bytes = "{}") -> list[str]:
    folder = place.model()
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return place.eval(folder)


def only(place: Place, **files: str) -> list[str]:
    folder = place.path / "only"
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return place.eval(folder)


def pipe(place: Place) -> list[str]:
    folder = place.model()
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    return place.eval(folder)


def encoder(place: Place, kind: str, name: str, **more: object) -> list[str]:
    return place.eval(place.model(model_type=kind, architectures=[name], **more))


def quantized(place: Place, method: str) -> list[str]:
    return place.eval(place.model(quantization_config={"quant_method": method, "bits": 4}))


def report(place: Place, name: str, content: str | bytes | None) -> list[str]:
    path = place.path / name if content is None else place.file(name, content)
    return ["report", str(path), "--output", str(place.path / "out")]


def server(place: Place, address: str, model: str = "x") -> list[str]:
    text = f"models:\n  - {{id: {model}, endpoint: {json.dumps(address)}}}\nconverse: {{}}\n"
    return place.manifest(text)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
MODELS: list[Case] = [
    ("no such folder", lambda p: p.eval("./no-such-folder"), 3, "no-such-folder"),
    ("a path of Windows", lambda p: p.eval("C:\\models\\llama"), 3, "models"),
    ("a URL", lambda p: p.eval("https://huggingface.co/maker/model"), 2, "maker/model"),
    ("a URL of a branch", lambda p: p.eval("https://huggingface.co/maker/model/tree/dev"), 2, "dev"),
    ("a server as id", lambda p: p.eval("http://localhost:8000/v1"), 2, "endpoint"),
    ("a bucket", lambda p: p.eval("s3://bucket/model"), 2, "s3://bucket/model"),
    ("an Ollama name", lambda p: p.eval("llama3:8b"), 3, "Ollama"),
    ("a revision in the name", lambda p: p.eval("maker/model@main"), 3, "revision: main"),
    ("a GGUF file", lambda p: p.eval(p.file("model.gguf", b"GGUF")), 3, "GGUF"),
    ("a GGUF file that is not there", lambda p: p.eval("model.Q4.gguf"), 3, "GGUF"),
    ("a weights file", lambda p: p.eval(p.file("model.safetensors", b"x")), 3, "name the folder"),
    ("an archive", lambda p: p.eval(p.file("model.zip", b"PK")), 3, "unpack"),
    ("a folder of GGUF files", lambda p: only(p, m__gguf=""), 3, "GGUF"),
    ("an empty folder", lambda p: only(p), 3, "no config.json"),
    (
        "a LoRA adapter",
        lambda p: only(p, adapter_config__json='{"base_model_name_or_path": "a/b"}'),
        3,
        "LoRA adapter for a/b",
    ),
    ("an adapter beside its base", lambda p: beside(p, "adapter_config.json"), 3, "LoRA adapter"),
    ("BERT", lambda p: encoder(p, "bert", "BertForMaskedLM"), 3, "BertForMaskedLM"),
    ("T5", lambda p: encoder(p, "t5", "T5ForConditionalGeneration", is_encoder_decoder=True), 3, "encoder-decoder"),
    ("a speech model", lambda p: encoder(p, "whisper", "WhisperForConditionalGeneration"), 3, "speech"),
    ("an image model", lambda p: encoder(p, "clip", "CLIPModel"), 3, "not a language model"),
    ("a reward model", lambda p: encoder(p, "llama", "LlamaForSequenceClassification"), 3, "reward model"),
    ("a model of tomorrow", lambda p: encoder(p, "of-tomorrow", "X"), 3, "of-tomorrow"),
    ("GPTQ", lambda p: quantized(p, "gptq"), 3, "gptq"),
    ("AWQ", lambda p: quantized(p, "awq"), 3, "awq"),
    ("an unknown quantization", lambda p: quantized(p, "zip7"), 3, "zip7"),
    ("no tokenizer", lambda p: without(p, "tokenizer*"), 3, "no tokenizer"),
    ("no weights", lambda p: without(p, "*.safetensors"), 3, "safetensors"),
    ("no config", lambda p: without(p, "config.json"), 3, "config.json"),
    ("a missing shard", lambda p: beside(p, "model-00001-of-00002.safetensors"), 3, "model-00002-of-00002.safetensors"),
    ("a pointer of git-lfs", lambda p: beside(p, "model.safetensors", LFS), 3, "git lfs pull"),
    (
        "weights cut short",
        lambda p: beside(p, "model.safetensors", (TINY / "model.safetensors").read_bytes()[:9000]),
        3,
        "model.safetensors",
    ),
    ("a pipe", pipe, 3, "model.safetensors"),
    ("a web page as config", lambda p: beside(p, "config.json", "<html>log in</html>"), 3, "web page"),
    ("tensors of other names", lambda p: weights(p, lambda w: {f"x.{k}": v for k, v in w.items()}), 3, "x."),
    (
        "one tensor is missing",
        lambda p: weights(p, lambda w: {k: v for k, v in w.items() if k != "model.norm.weight"}),
        3,
        "model.norm.weight",
    ),
    ("a config of an absurd size", lambda p: p.eval(p.model(hidden_size=10**9)), 3, "hidden_size"),
    ("a config of words", lambda p: p.eval(p.model(hidden_size="many")), 3, "hidden_size"),
    ("a demo model that is not there", lambda p: p.eval("llmjobs/demo-huge"), 3, "llmjobs/demo-base"),
    ("a device that is not here", lambda p: [*p.eval("llmjobs/demo-tiny"), "--set", "models[0].device=mps"], 3, "mps"),
]
MANIFESTS: list[Case] = [
    ("no manifest", lambda p: ["eval", str(p.path / "no.yaml")], 2, "no.yaml"),
    ("a folder", lambda p: ["eval", str(p.path)], 2, "folder"),
    ("an empty file", lambda p: p.manifest(""), 2, "study.yaml"),
    ("a list", lambda p: p.manifest("- a\n"), 2, "mapping"),
    ("two keys on a line", lambda p: p.manifest("models:\n  - id: id: x\n"), 2, "study.yaml:2"),
    ("id twice", lambda p: p.manifest("models:\n  - id: a\n    id: b\n"), 2, "'id' is given twice"),
    ("a tab", lambda p: p.manifest("models:\n\t- id: a\n"), 2, "study.yaml:2"),
    ("one model twice", lambda p: p.manifest("models: [a/x, b/x]\n"), 2, "'x'"),
    ("a typo", lambda p: p.manifest("model: [a/x]\n"), 2, "'models'"),
    ("device: gpu", lambda p: p.manifest("models: [{id: a/x, device: gpu}]\n"), 2, "did you mean 'cuda'"),
    ("4 bits", lambda p: p.manifest("models: [{id: a/x, quantization: 4}]\n"), 2, "did you mean '4bit'"),
    ("fp16", lambda p: p.manifest("models: [{id: a/x, dtype: fp16}]\n"), 2, "did you mean 'float16'"),
    ("--set model[0]", lambda p: p.manifest("models: [a/x]\n", "--set", "model[0].id=b"), 2, "did you mean 'models'"),
    ("--set models[7]", lambda p: p.manifest("models: [a/x]\n", "--set", "models[7].id=b"), 2, "entry 7"),
    ("--set without =", lambda p: p.manifest("models: [a/x]\n", "--set", "models"), 2, "path=value"),
    ("no section", lambda p: ["eval", str(p.file("s.yaml", "models: [llmjobs/demo-tiny]\n"))], 2, "'eval:' section"),
    ("no job", lambda p: ["run", str(p.file("s.yaml", "models: [llmjobs/demo-tiny]\n"))], 2, "eval:"),
    ("an unknown benchmark", lambda p: p.eval("llmjobs/demo-tiny", "mmlux"), 2, "mmlu"),
    (
        "an unknown subject",
        lambda p: p.eval("llmjobs/demo-tiny", "{name: mmlu, subjects: [astronomie]}"),
        2,
        "astronomy",
    ),
    ("an unknown command", lambda p: ["evaluate"], 2, "evaluate"),
]
QUESTIONS: list[Case] = [
    (
        "no such file",
        lambda p: p.eval("llmjobs/demo-tiny", "{file: ./no.csv, question: q, choices: [a], answer: r}"),
        3,
        "no.csv",
    ),
    ("an empty data file", lambda p: p.questions("q.csv", ""), 3, "q.csv"),
    ("a column that is not there", lambda p: p.questions("q.csv", "q,a,right\n1,2,a\n"), 3, "'b'"),
    ("an answer that is no option", lambda p: p.questions("q.csv", "q,a,b,right\nx,1,2,z\n"), 3, "q.csv"),
    ("broken JSON", lambda p: p.questions("q.jsonl", '{"q": 1\n'), 3, "q.jsonl"),
    ("a spreadsheet", lambda p: p.questions("q.xlsx", b"PK\x03\x04"), 3, "q.xlsx"),
    ("no parquet", lambda p: p.questions("q.parquet", b"x"), 3, "q.parquet"),
]
RESULTS: list[Case] = [
    ("no such result", lambda p: report(p, "nothing", None), 1, "nothing"),
    ("a picture", lambda p: report(p, "a.png", b"\x89PNG"), 1, "a.png"),
    ("a JSON file of something else", lambda p: report(p, "a.json", "{}"), 1, "a.json"),
    ("a CSV of something else", lambda p: report(p, "a.csv", "x,y\n1,2\n"), 1, "a.csv"),
    ("an empty result folder", lambda p: report(p, "e/keep.txt", "x")[:1] + [str(p.path / "e")], 1, "e"),
]
SERVERS: list[Case] = [
    ("a server without scheme", lambda p: server(p, "localhost:8000"), 2, "http://"),
    ("a key in the address", lambda p: server(p, "https://host/v1?key=1"), 2, "api_key_env"),
    (
        "a server that is not there, for a benchmark",
        lambda p: [
            "eval",
            str(p.file("s.yaml", "models: [{id: x, endpoint: 'http://127.0.0.1:9/v1'}]\neval: {benchmarks: [demo]}\n")),
            "--results",
            str(p.path / "r"),
        ],
        3,
        "cannot be reached",
    ),
    (
        "nobody there",
        lambda p: ["chat", "--model", "x", "--endpoint", "http://127.0.0.1:9/v1", "--once", "hi"],
        1,
        "cannot be reached",
    ),
]
CASES = [*MODELS, *MANIFESTS, *QUESTIONS, *RESULTS, *SERVERS]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(memory_kills, "oom_kills", lambda: None)
    return Place(tmp_path)


@pytest.mark.parametrize(("make", "code", "named"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_line_that_people_get(
    make: Callable[[Place], list[str]], code: int, named: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(make(place))
    out, err = capsys.readouterr()
    lines = [line for line in f"{out}\n{err}".splitlines() if re.match(r"llmjobs|failed:", line)]
    assert ended.value.code == code, f"{out}\n{err}"
    assert lines, f"{out}\n{err}"
    line = lines[0]
    assert named in line, line
    assert not EXCEPTION.search(f"{out}\n{err}"), EXCEPTION.search(f"{out}\n{err}")
    assert REMEDY.search(line.partition(": ")[2]), line
    assert len(set(lines)) <= 2, lines  # while it runs, and in the summary


def test_there_are_many_kinds() -> None:
    assert len(CASES) >= 40
    assert len({case[0] for case in CASES}) == len(CASES)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AttributeError("'list' object has no attribute 'values'"), "list has no values"),
        (KeyError("weight_map"), "there is no 'weight_map'"),
        (ValueError("torch.nn.ModuleError: no such layer"), "no such layer"),
        (RuntimeError(), "no reason given"),
    ],
)
def test_an_exception_is_told_without_its_class(error, said):
    assert plain_reason(error) == said
