"""Models that mean harm, or are not what they say: nothing of theirs runs, and each ends in one line."""

import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import pytest

from llmjobs.demo import DEMO_MODELS
from llmjobs.engines.transformers.load import load_model, load_tokenizer
from llmjobs.errors import ModelError
from llmjobs.hub.files import MAX_TEXT_BYTES, model_files
from llmjobs.hub.repositories import RemoteFile, RemoteRepo
from llmjobs.manifest import Manifest
from llmjobs.manifest.models import ModelSpec
from llmjobs.prepare import doctor_network
from llmjobs.prepare.doctor_result import Checkup


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete model to be damaged."""
    return Path(shutil.copytree(DEMO_MODELS["demo-tiny"], tmp_path / "model"))


def change(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(folder: Path, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(ModelSpec(id=str(folder), device="cpu", **options))
    line = str(caught.value)
    assert "\n" not in line and len(line) < 700, line
    return line


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> object:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("allowed", [False, True])
def test_weights_that_are_a_program_run_nothing(folder: Path, tmp_path: Path, allowed: bool) -> None:
    mark, weights = tmp_path / "it-ran", folder / "pytorch_model.bin"
    (folder / "model.safetensors").unlink()
    weights.write_bytes(pickle.dumps({"model.embed_tokens.weight": Payload(mark)}, protocol=2))
    refused(folder, pickle_weights=allowed)
    assert not mark.exists()
    pickle.loads(weights.read_bytes())  # noqa: S301 - the payload works where a file is simply unpickled
    assert mark.exists()


CODE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM
class OddConfig(LlamaConfig):
    model_type = "odd"
class OddModel(LlamaForCausalLM):
    config_class = OddConfig
"""


def test_code_of_a_model_runs_only_where_the_manifest_says_so(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    mark = tmp_path / "it-ran"
    (folder / "odd.py").write_text(CODE.format(mark=str(mark)))
    auto_map = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddModel"}
    change(folder, model_type="odd", architectures=["OddModel"], auto_map=auto_map)
    assert "trust_remote_code" in refused(folder)
    assert not mark.exists()
    load_model(ModelSpec(id=str(folder), device="cpu", trust_remote_code=True)).close()
    assert mark.exists()


def test_a_tokenizer_of_a_gigabyte_is_not_read(folder: Path) -> None:
    os.truncate(folder / "tokenizer.json", 1 << 30)
    assert "tokenizer.json has 1,024 MiB, more than the 128 MiB allowed" in refused(folder)
    with pytest.raises(ModelError, match="more than the 128 MiB allowed"):
        load_tokenizer(ModelSpec(id=str(folder)))


def test_a_large_tokenizer_on_the_hub_is_not_fetched() -> None:
    files = (RemoteFile("tokenizer.json", MAX_TEXT_BYTES + 1), RemoteFile("model.safetensors", 1 << 40))
    repo = RemoteRepo("model", "a/b", "0" * 40, files, gated=False)
    with pytest.raises(ModelError, match="tokenizer.json is 128 MiB, more than"):
        model_files(repo)


def test_a_pipe_among_the_files_hangs_nothing(folder: Path) -> None:
    (folder / "vocab.json").unlink(missing_ok=True)
    os.mkfifo(folder / "vocab.json")
    assert "vocab.json is not a regular file" in refused(folder)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"hidden_size": 10**9}, "hidden_size is 1,000,000,000, which no model has"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1,000,000,000, which no model has"),
        ({"vocab_size": 10**30}, "vocab_size is a number of over 18 digits"),
        ({"rope_scaling": {"short_factor_dim": 10**12}}, "short_factor_dim is"),
        ({"num_hidden_layers": 1000}, "describes 1,000 layers, but the weight files contain"),
        ({"hidden_size": 65536, "head_dim": 16}, "parameters, but the weight files contain"),
        ({"intermediate_size": 1 << 22}, "parameters, but the weight files contain"),
        ({"vocab_size": 1 << 25}, "parameters, but the weight files contain"),
        ({"hidden_size": -5}, "is not the config of a model"),
        ({"num_attention_heads": 0}, "is not the config of a model"),
        ({"hidden_size": "many"}, "is not the config of a model"),
        (
            {"model_type": "no-such-type"},
            "the model type 'no-such-type', which the installed transformers does not know",
        ),
    ],
    ids=str,
)
def test_an_absurd_config_is_one_line_and_takes_no_memory(folder: Path, values: dict[str, object], line: str) -> None:
    change(folder, **values)
    assert line in refused(folder)


@pytest.mark.parametrize("text", ["", "[", "[]", '"x"', "[" * 100_000, '{"hidden_size": ' + "9" * 5000 + "}", "\x00"])
def test_a_config_that_is_none(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refused(folder)


def lied(header: dict[str, object], length: int | None = None, data: bytes = b"\0" * 64) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[object], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        lied({}, length=1 << 62),
        lied({}, length=10**8 + 1),
        lied({"a": tensor([4], 0, 16)}, data=b""),
        lied({"model.embed_tokens.weight": tensor([1 << 40, 1 << 20], 0, 64)}),
        lied({"model.embed_tokens.weight": tensor([4], 0, 16), "lm_head.weight": tensor([4], 8, 24)}),
        lied({"model.embed_tokens.weight": tensor([4], 60, 16)}),
        lied({"model.embed_tokens.weight": tensor([-4], 0, 16)}),
        lied({"model.embed_tokens.weight": tensor(["x"], 0, 16)}),
        lied({"model.embed_tokens.weight": 7}),
        struct.pack("<Q", 4) + b"[][]",
        struct.pack("<Q", 90_000) + b"[" * 90_000,
    ],
    ids=range(13),
)
def test_a_safetensors_header_that_lies(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    refused(folder)


def test_a_sound_model_passes(folder: Path) -> None:
    loaded = load_model(ModelSpec(id=str(folder), device="cpu"))
    assert loaded.description.parameters > 0
    loaded.close()


@pytest.mark.parametrize("values", [{"num_labels": 1 << 25}, {"num_local_experts": 1 << 20}], ids=str)
def test_numbers_that_take_minutes_to_build_are_refused(folder: Path, values: dict[str, object]) -> None:
    change(folder, **values)
    assert "which no model has" in refused(folder)


def test_building_a_model_without_memory_has_a_time_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmjobs.engines.transformers.shapes.BUILD_S", -1.0)
    assert "takes more than" in refused(folder)


def test_a_slow_number_format_is_said_at_the_start(folder: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("llmjobs.engines.transformers.device.cpu_computes_bfloat16", lambda: False)
    load_model(ModelSpec(id=str(folder), device="cpu", dtype="bfloat16")).close()
    assert "has no bfloat16 instructions" in caplog.text


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("vocab_size", "many", "config.json is not the config of a model (Validation error for field 'vocab_size'"),
        ("num_attention_heads", 0, "config.json is not the config of a model ("),
        ("quantization_config", {}, "has a quantization_config in its config.json that names no method"),
        ("quantization_config", "gptq", "has a quantization_config in its config.json that names no method"),
    ],
)
def test_a_config_that_transformers_refuses_is_named_before_anything_is_loaded(folder, key, value, said) -> None:
    change(folder, **{key: value})
    assert said in refused(folder)
    checks = list(doctor_network.check_models(Checkup(study_of(folder), folder)))
    assert [check.status for check in checks] == ["failed"] and said in checks[0].line


def test_the_doctor_notices_weights_that_are_cut_short(folder) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (check,) = doctor_network.check_models(Checkup(study_of(folder), folder))
    assert check.status == "failed" and "is not a safetensors file (cut short" in check.line


def study_of(folder: Path) -> Manifest:
    return Manifest.model_validate({"name": "s", "models": [{"id": str(folder), "name": "m"}]})
