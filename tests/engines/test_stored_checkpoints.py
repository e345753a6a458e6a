"""Checkpoints that come quantized: recognised by their config, run as stored, equal to what their integers say."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stored_models
import torch
import yaml
from random_llama import make_llama
from stored_models import Tensors

from llmjobs.cli import main
from llmjobs.engines.transformers.load import load_model
from llmjobs.engines.transformers.model_files import Checkpoint, check_checkpoint
from llmjobs.errors import FingerprintError, ModelError
from llmjobs.manifest.models import ModelSpec
from llmjobs.quantization import stored as formats
from llmjobs.quantization.stored import Packing, Place, stored_as
from llmjobs.work.journal import read_records
from llmjobs.work.units import compare

Make = Callable[[Path, Path], tuple[Path, Tensors]]
WITHOUT = Place(cuda=False, installed=lambda name: False)
EVERYTHING = Place(cuda=True, installed=lambda name: True)
CPU = Place(cuda=False, installed=lambda name: True)


def compressed(kind: str) -> Make:
    return lambda base, folder: stored_models.compressed(base, folder, kind)


KINDS: Mapping[str, tuple[str | None, Make, str]] = {
    "fp8": (None, stored_models.fine_grained_fp8, "fp8-32x32-dequantized"),
    "compressed int4": ("compressed_tensors", compressed("int4"), "compressed-tensors-4bit-g32-dequantized"),
    "compressed int8": ("compressed_tensors", compressed("int8"), "compressed-tensors-8bit-channel-a8-dequantized"),
    "compressed fp8": ("compressed_tensors", compressed("fp8"), "compressed-tensors-fp8-channel-dequantized"),
    "compressed nvfp4": ("compressed_tensors", compressed("nvfp4"), "compressed-tensors-nvfp4-g16-dequantized"),
    "torchao int8": ("torchao", stored_models.torchao_int8, "int8"),
    "gptq": ("gptqmodel", stored_models.gptq, "gptq-4bit-g32"),
    "awq": ("gptqmodel", stored_models.awq, "awq-4bit-g32"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_llama(tmp_path_factory.mktemp("stored") / "base", hidden=128, spread=0.05)


def spec_of(folder: Path, **more: Any) -> ModelSpec:
    return ModelSpec.model_validate({"id": str(folder), "device": "cpu", "dtype": "float32", **more})


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    return int(ended.value.code or 0)


def log_probabilities(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.arange(40)[None] % 200 + 3).logits.float().log_softmax(-1)


def inputs_in_8_bits(layer: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
    """What W8A8 adds: each token's inputs as whole numbers of eight bits, with one scale."""
    (inputs,) = given
    scale = inputs.abs().amax(-1, keepdim=True) / 127.5
    return ((inputs / scale).round().clamp(-128, 127) * scale,)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_checkpoint_is_the_model_that_its_integers_say(kind: str, base: Path, tmp_path: Path) -> None:
    package, make, name = KINDS[kind]
    if package:
        pytest.importorskip(package, reason=f"{package} is not installed; docs/checkpoints.md")
    folder, plain = make(base, tmp_path / "stored")
    loaded = load_model(spec_of(folder))
    assert loaded.description.quantization == name
    reference = load_model(spec_of(base)).model
    whole = log_probabilities(reference)
    reference.load_state_dict(plain, strict=False)
    if "-a8" in name:
        for layer_name, layer in reference.named_modules():
            if stored_models.is_linear(f"{layer_name}.weight"):
                layer.register_forward_pre_hook(inputs_in_8_bits)
    difference = (log_probabilities(loaded.model) - log_probabilities(reference)).abs().max()
    assert difference < 2e-3, "the loaded model is not what the stored integers stand for"
    assert (log_probabilities(loaded.model) - whole).abs().max() > 2 * difference, "quantizing changed nothing"
    unquantized = load_model(spec_of(base)).description
    assert loaded.description.parameters == pytest.approx(unquantized.parameters, rel=0.12)


LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}
WHOLE = ("config.json", "tokenizer.json", "model.safetensors")


def config_of(quantization: Mapping[str, Any]) -> dict[str, Any]:
    return LLAMA | {"quantization_config": dict(quantization)}


def compressed_config(**weights: Any) -> dict[str, Any]:
    activations = weights.pop("activations", None)
    scheme = {"weights": weights, "input_activations": activations and {"num_bits": activations, "type": "int"}}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": scheme}}


@pytest.mark.parametrize(
    ("quantization", "label"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq-4bit-g128"),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "gptq-8bit-channel"),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, "awq-4bit-g64"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-128x128"),
        ({"quant_method": "fp8"}, "fp8-tensor"),
        ({"quant_method": "mxfp4"}, "mxfp4-g32"),
        (compressed_config(num_bits=4, type="int", strategy="group", group_size=128), "compressed-tensors-4bit-g128"),
        (
            compressed_config(num_bits=8, type="int", strategy="channel", activations=8),
            "compressed-tensors-8bit-channel-a8",
        ),
        (compressed_config(num_bits=8, type="float", strategy="tensor"), "compressed-tensors-fp8-tensor"),
        (
            compressed_config(num_bits=4, type="float", strategy="tensor_group", group_size=16),
            "compressed-tensors-nvfp4-g16",
        ),
        ({"quant_method": "compressed-tensors", "config_groups": 7}, "compressed-tensors"),
        ({"quant_method": "gptq", "bits": "four"}, "gptq"),
        (
            {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_data": {}}}},
            "int8",
        ),
        (
            {
                "quant_method": "torchao",
                "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 64}}},
            },
            "torchao-4bit-g64",
        ),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "4bit"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "bitsandbytes-fp4-g64"),
        ({"load_in_8bit": True}, "8bit"),
        ({"quant_method": "of-tomorrow"}, "of-tomorrow"),
    ],
)
def test_what_is_stored_is_read_from_the_config(quantization: dict[str, Any], label: str) -> None:
    found = stored_as(config_of(quantization))
    assert found is not None and found.label == label
    nested = stored_as({"model_type": "llava", "text_config": config_of(quantization)})
    assert nested is not None and nested.label == label


def test_plain_weights_are_not_taken_for_quantized_ones() -> None:
    for plain in ({}, {"quantization_config": None}, {"quantization_config": {"quant_method": ""}}, {"text_config": 3}):
        assert stored_as(plain) is None


@pytest.mark.parametrize(
    ("quantization", "place", "said"),
    [
        ({"quant_method": "gptq", "bits": 4}, WITHOUT, "needs optimum and gptqmodel: pip install optimum gptqmodel"),
        ({"quant_method": "awq", "bits": 4}, WITHOUT, "needs gptqmodel: pip install gptqmodel"),
        ({"quant_method": "compressed-tensors"}, WITHOUT, "needs compressed-tensors: pip install compressed-tensors"),
        ({"quant_method": "quanto"}, WITHOUT, "needs optimum-quanto: pip install optimum-quanto"),
        ({"quant_method": "hqq"}, CPU, "transformers 5 no longer loads"),
        ({"quant_method": "nvfp4"}, EVERYTHING, "use a version for compressed-tensors"),
        (
            {"quant_method": "fp8"},
            Place(True, lambda name: False),
            "needs the kernels package on a GPU; run pip install kernels",
        ),
        ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, CPU, "need an NVIDIA GPU"),
        ({"quant_method": "of-tomorrow"}, EVERYTHING, "'of-tomorrow', which transformers does not load"),
    ],
)
def test_what_cannot_run_says_what_it_needs(quantization: dict[str, Any], place: Place, said: str) -> None:
    found = stored_as(config_of(quantization))
    assert found is not None
    assert said in " ".join(found.problems(place))


def checkpoint(quantization: Mapping[str, Any]) -> Checkpoint:
    contents = {"config.json": config_of(quantization)}
    return Checkpoint("maker/model", WHOLE, lambda name: contents.get(name, {}))


def test_quantizing_a_quantized_checkpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "is_installed", lambda name: True)
    for quantization in ({"quant_method": "gptq", "bits": 4, "group_size": 128}, {"load_in_8bit": True}):
        check_checkpoint(ModelSpec(id="maker/model"), checkpoint(quantization))
        with pytest.raises(ModelError, match=r"is quantized already \((gptq-4bit-g128|8bit)\); remove quantization:"):
            check_checkpoint(ModelSpec(id="maker/model", quantization="4bit"), checkpoint(quantization))
    check_checkpoint(ModelSpec(id="maker/model", quantization="8bit"), checkpoint({"load_in_8bit": True}))


def test_a_checkpoint_that_is_not_what_its_config_says_is_refused(base: Path, tmp_path: Path) -> None:
    """Nothing falls back in silence: an FP8 config over plain weights is no FP8 model, and no plain one either."""
    from safetensors.torch import load_file

    how = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 32]}
    folder = stored_models.stored_copy(base, tmp_path / "odd", load_file(base / "model.safetensors"), how)
    loaded = load_model(spec_of(folder)).description
    assert loaded.quantization == "fp8-32x32-dequantized" and loaded.quantized_share is None


def test_packed_layers_take_the_bytes_that_their_packing_says() -> None:
    assert Packing(4, group=(128,)).layer_bytes(4096, 4096) == 4096 * 4096 // 2 + 4096 * 4096 // 128 * 2
    assert Packing(8, "fp", (128, 128)).layer_bytes(256, 512) == 256 * 512 + 2 * 4 * 2
    assert Packing(8, group="channel").layer_bytes(64, 32) == 64 * 32 + 32 * 2
    assert Packing(4, "mxfp", (32,)).text == "mxfp4-g32"


def test_a_run_from_before_the_longer_names_goes_on(tmp_path: Path) -> None:
    class Unit:
        path = "eval/m/u"

    saved = {"quantization": "gptq", "dtype": "float16"}
    compare(Unit(), saved, saved | {"quantization": "gptq-4bit-g128"})  # type: ignore[arg-type]
    compare(Unit(), {"quantization": "none"}, {"quantization": "fp8-128x128-dequantized"})  # type: ignore[arg-type]
    for other in ("awq-4bit-g128", "none", "gptqish"):
        with pytest.raises(FingerprintError, match="quantization was 'gptq'"):
            compare(Unit(), saved, saved | {"quantization": other})  # type: ignore[arg-type]


def test_a_stored_checkpoint_is_planned_evaluated_and_resumed(base: Path, tmp_path: Path, capsys: Any) -> None:
    """FP8, which needs no package: the record, the plan and the report say what is stored."""
    folder, _ = stored_models.fine_grained_fp8(base, tmp_path / "m-fp8")
    study = tmp_path / "study.yaml"
    model = {"id": str(folder), "device": "cpu", "dtype": "float32"}
    section = {"benchmarks": [{"name": "demo", "limit": 3}], "batch_tokens": 256, "threads": 1}
    study.write_text(yaml.safe_dump({"models": [model], "eval": section}))
    assert run("eval", study, "--results", tmp_path / "r") == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "r/study/eval/m-fp8/model.json").read_text())
    assert found["quantization"] == "fp8-32x32-dequantized"
    told = capsys.readouterr().err
    assert "its stored weights (fp8-32x32) do not run packed on cpu" in told
    records = [one for file in (tmp_path / "r").rglob("records.jsonl") for one in read_records(file)]
    assert records and all(one["status"] == "ok" for one in records)
    assert run("eval", study, "--results", tmp_path / "r") == 0
    capsys.readouterr()
    assert run("plan", study, "--json") == 0
    (planned,) = json.loads(capsys.readouterr().out)["models"]
    assert planned["error"] is None and planned["quantization"] == "fp8-32x32-dequantized"
    assert planned["weight_bytes"] == pytest.approx(found["weight_bytes"], rel=0.05)
    assert run("eval", study, "--results", tmp_path / "r2", "--set", "models[0].quantization=4bit") == 3
    assert "is quantized already (fp8-32x32)" in capsys.readouterr().err


def test_a_format_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    made = replace(formats.STORED["gptq"], name="sevenths", packages=("json",), packings=lambda config: [Packing(3)])
    monkeypatch.setitem(formats.STORED, "sevenths", made)
    found = stored_as(config_of({"quant_method": "sevenths"}))
    assert found is not None and found.label == "sevenths-3bit"
    check_checkpoint(ModelSpec(id="maker/model"), checkpoint({"quant_method": "sevenths"}))
