"""A weight that did not come from the files would be random, so such a model is refused, whatever the reason."""

import gc
import inspect
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
import yaml
from every_causal_lm import CANNOT_BE_BUILT, NAMES, tiny_model
from safetensors.torch import load_file, save_file

from llmjobs.cli import main
from llmjobs.demo import DEMO_MODELS
from llmjobs.engines.transformers.load import check_reads_forward, load_model
from llmjobs.engines.transformers.model_files import _mappings
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
    assert "the weight files lack" in line and "with random numbers" in line and "wrapped." in line


def test_one_small_weight_is_missing(folder: Path) -> None:
    change(folder, lambda weights: {name: v for name, v in weights.items() if name != "model.norm.weight"})
    assert "lack 1 of the model's weights (model.norm.weight)" in refused(folder)


def test_a_head_that_the_model_does_not_have(folder: Path) -> None:
    change(folder, lambda weights: weights | {"v_head.summary.weight": torch.ones(1, 4)})
    assert "contain 1 weight that LlamaForCausalLM does not have (v_head.summary.weight)" in refused(folder)


def test_a_weight_of_another_shape(folder: Path) -> None:
    change(folder, lambda weights: weights | {"model.norm.weight": torch.ones(3)})
    line = refused(folder)
    assert "1 weight does not have the shape that config.json gives (model.norm.weight)" in line
    assert "ignore_mismatched_sizes" not in line


def test_a_tokenizer_with_more_words_than_the_model_knows(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    rows = config["vocab_size"] - 7
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    words = ("embed_tokens.weight", "lm_head.weight")
    change(folder, lambda weights: {name: v[:rows] if name.endswith(words) else v for name, v in weights.items()})
    with pytest.raises(ModelError, match=rf"its tokenizer has \d+ tokens beyond the {rows:,} that the model knows"):
        load_model(ModelSpec(id=str(folder), device="cpu"))


def test_a_token_that_was_added_for_padding_is_no_reason(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<extra_{n}>" for n in range(rows)]})
    tokenizer.save_pretrained(folder)
    load_model(ModelSpec(id=str(folder), device="cpu")).close()


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


def kind_of(folder: Path, kind: str, **config: Any) -> str:
    """Put a tiny model of ``kind`` beside the demo's tokenizer."""
    tiny_model(kind, **{"vocab_size": 2048} | config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "config"), [("xlnet", {}), ("cpmant", {}), ("gemma3_text", {"use_bidirectional_attention": True})]
)
def test_a_causal_class_that_reads_in_both_directions(folder: Path, kind: str, config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="reads its prompt in both directions; only decoder models"):
        load_model(ModelSpec(id=kind_of(folder, kind, **config), device="cpu", dtype="float32"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["gemma3_text", "mamba", "mixtral", "openai-gpt"])
def test_models_that_read_forward_are_loaded(folder: Path, kind: str, dtype: Any) -> None:
    load_model(ModelSpec(id=kind_of(folder, kind), device="cpu", dtype=dtype)).close()


@pytest.mark.parametrize("name", [pytest.param(one, marks=pytest.mark.slow) for one in NAMES])
def test_which_way_every_causal_class_reads(name: str) -> None:
    if name in CANNOT_BE_BUILT:
        pytest.skip(CANNOT_BE_BUILT[name])
    model = tiny_model(name)
    always = {"cpmant", "xlm", "xlnet", "xmod", "prophetnet"}
    encoders = {*_mappings()["masked"], "bert-generation"} - {"reformer", "mvp", "bart"}
    if name in always or (name in encoders and getattr(model.config, "is_decoder", None) is False):
        with pytest.raises(ModelError, match="both directions"):
            check_reads_forward(name, model)
    else:
        check_reads_forward(name, model)


def test_weights_that_are_not_numbers_say_nothing_about_directions(folder: Path) -> None:
    change(folder, lambda weights: {name: value * float("nan") for name, value in weights.items()})
    load_model(ModelSpec(id=str(folder), device="cpu")).close()


def test_a_number_format_that_a_model_cannot_compute_in(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"XLNetLMHeadModel cannot be computed in bfloat16 .*; set dtype: float32"):
        load_model(ModelSpec(id=kind_of(folder, "xlnet"), device="cpu", dtype="bfloat16"))


@pytest.mark.parametrize("section", ["letters", "replies"])
def test_a_forward_pass_that_fails_is_one_line_with_a_remedy(
    folder: Path, tmp_path, monkeypatch, capsys, section
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (36x64 and 32x64)")

    monkeypatch.setattr(
        type(load_model(ModelSpec(id=str(folder), device="cpu")).model.model.layers[0].mlp), "forward", fails
    )
    rows = [
        {"question": f"{n}?", "yes": "y", "no": "n", "answer": "A" if section == "letters" else "one"} for n in range(4)
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    choices = {"choices": ["yes", "no"]} if section == "letters" else {}
    benchmark = {"name": "q", "file": "q.jsonl", "question": "question", "answer": "answer", **choices}
    study = {
        "models": [{"id": str(folder), "name": "m", "device": "cpu", "dtype": "float32"}],
        "eval": {"benchmarks": [benchmark]},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(tmp_path / "study.yaml"), "--results", str(tmp_path / "r")])
    out = capsys.readouterr().out
    assert ended.value.code == 3 and "unexpected error" not in out
    assert (
        "eval/m/q.all: " in out
        and " LlamaForCausalLM " in out
        and "shapes cannot be multiplied (36x64 and 32x64)" in out
    )
    assert "or use another model" in out


def test_a_guarded_forward_keeps_its_arguments_and_lets_the_model_go(folder: Path) -> None:
    model = load_model(ModelSpec(id=str(folder), device="cpu")).model
    assert inspect.signature(model.forward) == inspect.signature(MethodType(type(model).forward, model))
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()
