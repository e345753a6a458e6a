"""LoRA adapters: found, checked against their base model, and computed as peft computes them."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from random_llama import make_llama

from llmjobs.cli import main
from llmjobs.demo import DEMO_MODELS
from llmjobs.engines import adapters
from llmjobs.engines.locate import Located, folder_hash
from llmjobs.errors import MissingPackageError, ModelError
from llmjobs.manifest.models import ModelSpec
from llmjobs.work.journal import read_records

TINY = DEMO_MODELS["demo-tiny"]
CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "maker/tiny", "r": 4}


def adapter_files(folder: Path, **config: Any) -> Path:
    """The files of an adapter that nothing loads."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    return int(ended.value.code or 0)


def refused(spec: ModelSpec) -> str:
    with pytest.raises(ModelError) as caught:
        adapters.locate_adapter(spec)
    return str(caught.value)


def test_the_name_holds_the_adapter() -> None:
    spec = ModelSpec.model_validate({"id": "maker/base", "adapter": "other/lora", "quantization": "4bit"})
    assert spec.name == "base+lora-4bit"
    assert len(ModelSpec.model_validate({"id": "m/" + "b" * 95, "adapter": "a/" + "l" * 95}).name) <= 100
    assert ModelSpec.model_validate({"id": "maker/base"}).name == "base"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{id: a/b, merge_adapter: true}", "are for an adapter; add adapter:"),
        ("{id: a/b, adapter_revision: main}", "are for an adapter; add adapter:"),
        ("{id: a/b-GGUF, adapter: c/d}", "adapter needs transformers, not llama.cpp; merge it"),
        ("{id: a/b, engine: llama.cpp, adapter: c/d}", "adapter needs transformers, not llama.cpp"),
    ],
)
def test_adapters_are_for_transformers(model: str, said: str, tmp_path: Path, capsys: Any) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(f"models: [{model}]\neval: {{benchmarks: [{{name: demo}}]}}\n")
    assert run("manifest", study) == 2
    assert said in capsys.readouterr().err


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = adapter_files(tmp_path / "lora")
    line = refused(ModelSpec(id="maker/other", adapter=str(folder)))
    assert "was trained on maker/tiny, but id: is maker/other; set id: maker/tiny, or use an adapter of" in line
    for same in ("maker/tiny", "Maker/Tiny", str(tmp_path)):
        found = adapters.locate_adapter(ModelSpec(id=same, adapter=str(folder)))
        assert found is not None and str(found.revision).startswith("sha256:")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "IA3"}, "is an adapter of type 'IA3'; only LoRA adapters work"),
        ({"peft_type": None}, "is an adapter of type 'unknown'"),
        ({"task_type": "SEQ_CLS"}, "was trained for SEQ_CLS, not for text generation"),
    ],
)
def test_what_is_no_lora_adapter_is_named(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in refused(ModelSpec(id="maker/tiny", adapter=str(adapter_files(tmp_path / "lora", **config))))


def test_a_folder_that_is_no_adapter_is_named(tmp_path: Path) -> None:
    spec = ModelSpec(id="maker/tiny", adapter="x/y")
    where = [
        (str(TINY), "has no adapter_config.json; it has a config.json"),
        (f"{tmp_path}/none", "there is no folder"),
    ]
    where += [(str(adapter_files(tmp_path / "a") / "adapter_config.json"), "is a file; name the folder")]
    for adapter, said in where:
        assert said in refused(spec.model_copy(update={"adapter": adapter}))
    for name, said in (("adapter_model.safetensors", "has no adapter_model.safetensors; fetch"),):
        (tmp_path / "a" / name).unlink()
        assert said in refused(spec.model_copy(update={"adapter": str(tmp_path / "a")}))
    (tmp_path / "a/adapter_model.bin").write_bytes(b"pickle")
    assert "pickle_weights: true allows adapter_model.bin" in refused(
        spec.model_copy(update={"adapter": str(tmp_path / "a")})
    )
    (tmp_path / "a/adapter_config.json").write_text("[1]")
    assert "is not a JSON object" in refused(spec.model_copy(update={"adapter": str(tmp_path / "a")}))


def test_units_declare_the_adapter_and_older_ones_do_not(tmp_path: Path) -> None:
    plain = ModelSpec(id="maker/tiny")
    assert adapters.settings_of(plain, Located("maker/tiny", "c0", is_local=False)) == plain.engine_settings
    spec = ModelSpec(id="maker/tiny", adapter="a/b", merge_adapter=True)
    located = Located("maker/tiny", "c0", is_local=False, adapter=Located("a/b", "c1", is_local=False))
    assert adapters.settings_of(spec, located) == {
        "adapter": "a/b", "adapter_revision": "c1", "merge_adapter": True,
    }  # fmt: skip


def test_without_peft_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmjobs.engines.transformers import adapter as applied
    from llmjobs.engines.transformers.load import load_model

    monkeypatch.setattr(applied, "find_spec", lambda name: None)
    spec = ModelSpec(id=str(TINY), adapter=str(adapter_files(tmp_path / "lora")))
    with pytest.raises(MissingPackageError, match=r"adapter: needs peft; pip install 'llmjobs\[peft\]'"):
        load_model(spec)


# With peft itself.


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, torch.Tensor]:
    """A model, an adapter that peft wrote for it, and peft's own log-probabilities."""
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install 'llmjobs[peft]'")
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapters")
    base = make_llama(folder / "base", hidden=128, spread=0.05)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    how = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        whole = peft.get_peft_model(model, how)
    for name, weight in whole.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    whole.save_pretrained(folder / "lora")
    return base, folder / "lora", log_probabilities(whole.eval())


def log_probabilities(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.arange(40)[None] % 200 + 3).logits.float().log_softmax(-1)


@pytest.mark.parametrize("merge", [False, True])
def test_an_adapter_is_computed_as_peft_computes_it(made: tuple[Path, Path, torch.Tensor], merge: bool) -> None:
    from llmjobs.engines.transformers.load import load_model

    base, lora, wanted = made
    settings = {"id": str(base), "device": "cpu", "dtype": "float32"}
    spec = ModelSpec.model_validate({**settings, "adapter": str(lora), "merge_adapter": merge})
    loaded = load_model(spec)
    assert (log_probabilities(loaded.model) - wanted).abs().max() < (1e-4 if merge else 1e-6)
    plain = load_model(ModelSpec.model_validate(settings))
    assert (log_probabilities(plain.model) - wanted).abs().max() > 0.1
    found = loaded.description
    assert (found.adapter, found.adapter_merged, found.architecture) == (str(lora), merge, "LlamaForCausalLM")
    more = found.parameters - plain.description.parameters
    assert more == (0 if merge else 2 * 4 * (128 + 128 + 128 + 64 + 128 + 256))


def test_an_adapter_that_does_not_fit_is_one_line(made: tuple[Path, Path, torch.Tensor], tmp_path: Path) -> None:
    from llmjobs.engines.transformers.load import load_model

    _, lora, _ = made
    narrow, short = make_llama(tmp_path / "narrow", hidden=64), make_llama(tmp_path / "short", hidden=128, layers=1)
    cut = Path(shutil.copytree(lora, tmp_path / "cut"))
    whole = (cut / "adapter_model.safetensors").read_bytes()
    (cut / "adapter_model.safetensors").write_bytes(whole[:-100])
    for base, adapter, said in (
        (narrow, lora, "is 4, 128 in the adapter and 4, 64 in the model"),
        (short, lora, "has 6 weights for layers that the model does not have"),
        (short, cut, "is cut short or not a safetensors file"),
    ):
        with pytest.raises(ModelError) as caught:
            load_model(ModelSpec(id=str(base), adapter=str(adapter), device="cpu", dtype="float32"))
        line = str(caught.value)
        assert said in line and "\n" not in line and "Error" not in line


def test_an_eval_with_an_adapter_resumes_and_is_reported(
    made: tuple[Path, Path, torch.Tensor], tmp_path: Path, capsys: Any
) -> None:
    base, given, _ = made
    lora = Path(shutil.copytree(given, tmp_path / "lora"))
    study = tmp_path / "study.yaml"
    shared = {"id": str(base), "device": "cpu", "dtype": "float32"}
    models = [shared | {"name": "plain"}, shared | {"adapter": str(lora)}]
    section = {
        "benchmarks": [{"name": "demo", "subjects": ["alphabet_order", "odd_one_out"], "limit": 6}],
        "batch_tokens": 256,
        "threads": 1,
    }
    study.write_text(yaml.safe_dump({"models": models, "eval": section}))
    assert run("eval", study, "--results", tmp_path / "r") == 0, capsys.readouterr().err
    written = sorted((tmp_path / "r/study/eval/base+lora").rglob("records.jsonl"))
    unit = next(path for path in written if next(iter(read_records(path)))["loglikelihoods"])
    whole = unit.read_bytes()
    plain = tmp_path / "r/study/eval/plain" / unit.parent.name / "records.jsonl"
    scores = [[one["loglikelihoods"] for one in read_records(path)] for path in (unit, plain)]
    assert scores[0] != scores[1], "the adapter changed nothing"
    found = json.loads((tmp_path / "r/study/eval/base+lora/model.json").read_text())
    assert found["adapter"] == str(lora) and found["adapter_merged"] is False
    assert run("report", tmp_path / "r/study", "--output", tmp_path / "report.pdf") == 0, capsys.readouterr().err
    assert f"{base} + {lora}" in (tmp_path / "summary.csv").read_text()
    for path in unit.parent.iterdir():
        if path.name.startswith(("checkpoint", "records", "unit", "timings")):
            path.unlink()
    assert run("eval", study, "--results", tmp_path / "r") == 0
    assert unit.read_bytes() == whole
    changed = json.loads((lora / "adapter_config.json").read_text()) | {"lora_alpha": 16}
    (lora / "adapter_config.json").write_text(json.dumps(changed))
    folder_hash.cache_clear()  # a new command has an empty cache
    capsys.readouterr()
    assert run("eval", study, "--results", tmp_path / "r") != 0
    assert "adapter_revision was" in capsys.readouterr().err
