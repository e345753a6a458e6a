"""A weight that did not come from the files is random: such a model is refused, whatever the reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmjobs.demo import DEMO_MODELS
from llmjobs.engines.transformers.load import load_model
from llmjobs.errors import ModelError
from llmjobs.manifest.models import ModelSpec

Weights = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_MODELS["demo-tiny"], tmp_path / "model"))


def change(folder: Path, how: Callable[[Weights], Weights]) -> None:
    path = folder / "model.safetensors"
    save_file({name: value.contiguous() for name, value in how(load_file(path)).items()}, path, {"format": "pt"})


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(ModelSpec(id=str(folder), device="cpu"))
    line = str(caught.value)
    assert "nothing was evaluated" in line
    return line


def test_tensors_of_other_names(folder: Path) -> None:
    change(folder, lambda weights: {f"wrapped.{name}": value for name, value in weights.items()})
    line = refused(folder)
    assert "the weight files lack" in line and "would be random numbers" in line and "wrapped." in line


def test_one_small_weight_is_missing(folder: Path) -> None:
    change(folder, lambda weights: {name: v for name, v in weights.items() if name != "model.norm.weight"})
    assert "lack 1 of the model's weights (model.norm.weight)" in refused(folder)


def test_a_head_that_the_model_does_not_have(folder: Path) -> None:
    change(folder, lambda weights: weights | {"v_head.summary.weight": torch.ones(1, 4)})
    assert "hold 1 weights that LlamaForCausalLM does not have (v_head.summary.weight)" in refused(folder)


def test_a_weight_of_another_shape(folder: Path) -> None:
    change(folder, lambda weights: weights | {"model.norm.weight": torch.ones(3)})
    line = refused_with_any_word(folder)
    assert "model.norm.weight" in line or "shape" in line


def refused_with_any_word(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(ModelSpec(id=str(folder), device="cpu"))
    return str(caught.value)


def test_fewer_layers_than_the_files_hold(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    layers = config["num_hidden_layers"]
    config["num_hidden_layers"] = layers - 1
    config.pop("layer_types", None)
    path.write_text(json.dumps(config))
    assert f"model.layers.{layers - 1}." in refused(folder)


def test_tied_weights_and_old_tables_are_no_reason(folder: Path) -> None:
    change(
        folder,
        lambda weights: (
            {name: value for name, value in weights.items() if name != "lm_head.weight"}
            | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
        ),
    )
    config = json.loads((folder / "config.json").read_text())
    if not config.get("tie_word_embeddings"):
        change(folder, lambda weights: weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()})
    load_model(ModelSpec(id=str(folder), device="cpu")).close()
