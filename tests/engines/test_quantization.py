"""Quantization methods are entries of a registry: torchao's int8 as one of them, and one that is made up here."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from llmjobs.cli import main
from llmjobs.cluster import resources
from llmjobs.cluster.resources import Nodes, demands
from llmjobs.engines import machine_probe
from llmjobs.engines.transformers.load import load_model
from llmjobs.engines.transformers.machine_probe_child import try_layer
from llmjobs.engines.transformers.quantize import effective_quantization, quantized_layer
from llmjobs.engines.transformers.shapes import on_meta, quantizable, whole_weight_bytes
from llmjobs.errors import MissingPackageError
from llmjobs.manifest import load_manifest
from llmjobs.manifest.models import ModelSpec
from llmjobs.manifest.schema import json_schema
from llmjobs.matrix.cells import make_cells
from llmjobs.quantization import METHODS, Method
from llmjobs.work.journal import read_records

DEMO = "llmjobs/demo-tiny"


class Third(torch.nn.Linear):
    """A layer whose weights are rounded to thirds."""


def third(layer, dtype, device):
    made = Third(layer.in_features, layer.out_features, bias=False, dtype=dtype, device=device)
    made.weight = ThirdWeight((layer.weight.detach() * 3).round().div(3).to(device, dtype), requires_grad=False)
    return made


class ThirdWeight(torch.nn.Parameter):
    """Tells the method by its type."""


THIRDS = Method(
    name="3rds",
    title="thirds",
    about="weights rounded to thirds",
    package="json",
    install="thirds",
    devices=("cpu",),
    weight_bytes=lambda count: count // 3,
    scale_bytes=lambda inputs, outputs: 7 * outputs,
    gpu_share=0.5,
    layer_error=20.0,
    scoring_nats=0.5,
    config=lambda dtype: None,
    kind_of=lambda weight: "3rds" if type(weight) is ThirdWeight else None,
    layer=third,
)


@pytest.fixture
def thirds(monkeypatch) -> Method:
    monkeypatch.setitem(METHODS, THIRDS.name, THIRDS)
    return THIRDS


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return ended.value.code or 0


def study(folder: Path, quantization: str, **more) -> Path:
    path = folder / "study.yaml"
    models = [{"id": DEMO, "quantization": quantization, "device": "cpu", "dtype": "float32"}]
    section = {"benchmarks": [{"name": "demo", "limit": 3}], "batch_tokens": 256, "threads": 1}
    path.write_text(yaml.safe_dump({"models": models, "eval": section, **more}))
    return path


def test_a_method_is_one_entry(thirds, tmp_path, monkeypatch):
    """Manifest, schema, names, bytes, matrix, a node's demand and the tried layer follow one registration."""
    found = load_manifest(study(tmp_path, "3rds", matrix={"quantizations": ["none", "3rds"], "devices": "cpu"}))
    assert (found.models[0].quantization, found.models[0].name) == ("3rds", "demo-tiny-3rds")
    assert (
        json_schema()["$defs"]["MatrixSection"]["properties"]["quantizations"]["anyOf"][0]["items"]["enum"][-1]
        == "3rds"
    )
    assert [cell.row for cell in make_cells(found)] == ["CPU none", "CPU thirds"]
    with pytest.raises(ValueError, match="3rds needs json, which .* Apple's GPU"):
        ModelSpec(id="a/b", quantization="3rds", device="mps")
    config = load_model(ModelSpec(id=DEMO, device="cpu", dtype="float32")).model.config
    model = on_meta(config, torch.float32)
    packed = sum(layer.weight.numel() for layer in quantizable(model))
    scales = sum(7 * layer.out_features for layer in quantizable(model))
    small = sum(layer.weight.numel() // 3 for layer in quantizable(model))
    assert whole_weight_bytes(model, "3rds") == whole_weight_bytes(model, "none") - 4 * packed + small + scales
    verdict = try_layer("cpu", "float32", "3rds")
    assert verdict["ok"] and verdict["error"] > 0.01
    assert not try_layer("cpu", "float32", "none")["error"]
    monkeypatch.setattr(resources, "weight_file_bytes", lambda *_: 8 << 30)
    located = SimpleNamespace(locate=lambda spec: (object(), None))
    models = {name: ModelSpec(id="a/b", device="cuda", quantization=name) for name in ("none", "3rds")}
    asked = demands(models, 1, located, Nodes(2.0, 1.0, 2.0, 16 << 30), whole_nodes=False)
    assert (asked["none"].gpus, asked["3rds"].gpus) == (1.0, 0.5)


def test_weights_that_are_not_what_was_asked_for_are_told(thirds, monkeypatch):
    layer = torch.nn.Linear(64, 64, bias=False)
    assert effective_quantization(quantized_layer(layer, "3rds", torch.float32, "cpu")) == "3rds"
    mixed = torch.nn.Sequential(quantized_layer(layer, "3rds", torch.float32, "cpu"))
    monkeypatch.setitem(METHODS, "3rds", replace(THIRDS, kind_of=lambda weight: None))
    assert effective_quantization(mixed) == "none"
    with pytest.raises(RuntimeError, match="asked for 3rds, but the layer's weights are none"):
        quantized_layer(layer, "3rds", torch.float32, "cpu")


def test_a_missing_package_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(METHODS, "int8", replace(METHODS["int8"], package="torchao_is_not_here"))
    with pytest.raises(MissingPackageError):
        METHODS["int8"].require()
    assert run("eval", study(tmp_path, "int8"), "--results", tmp_path / "r") == 3
    told = capsys.readouterr().err
    assert "quantization: int8 needs torchao_is_not_here, which cannot be imported" in told
    assert "pip install 'llmjobs[torchao]'" in told and "Traceback" not in told


def test_unknown_names_are_told_with_the_known_ones(tmp_path, capsys):
    assert run("eval", study(tmp_path, "int9"), "--results", tmp_path / "r") == 2
    assert "'int9' is not one of none, 8bit, 4bit, int8; did you mean 'int8'?" in capsys.readouterr().err


def test_torchao_int8_is_loaded_recognised_and_evaluated(tmp_path, capsys):
    pytest.importorskip("torchao", reason="torchao is not installed: pip install 'llmjobs[torchao]'")
    path = study(tmp_path, "int8")
    assert run("eval", path, "--results", tmp_path / "r") == 0, capsys.readouterr().err
    folder = tmp_path / "r/study/eval/demo-tiny-int8"
    found = json.loads((folder / "model.json").read_text())
    assert (found["quantization"], found["dtype"], found["scoring_path"]) == ("int8", "float32", "shared")
    plain = load_model(ModelSpec(id=DEMO, device="cpu", dtype="float32")).description
    assert found["parameters"] == plain.parameters
    assert found["weight_bytes"] < 0.7 * plain.weight_bytes
    records = [one for file in folder.rglob("records.jsonl") for one in read_records(file)]
    assert records and all(one["status"] == "ok" for one in records)
    capsys.readouterr()
    assert run("plan", path, "--json") == 0
    (planned,) = json.loads(capsys.readouterr().out)["models"]
    assert planned["error"] is None and planned["fits"]
    assert planned["weight_bytes"] == pytest.approx(found["weight_bytes"], rel=0.02)


def test_doctor_tries_a_layer_of_torchao():
    pytest.importorskip("torchao", reason="torchao is not installed: pip install 'llmjobs[torchao]'")
    machine = machine_probe.probe_machine([("cpu", "auto", "int8")])
    verdict = machine.layers["cpu", "auto", "int8"]
    assert verdict.ok and 0 < (verdict.figure or 0) < METHODS["int8"].layer_error
