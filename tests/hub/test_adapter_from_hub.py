"""A LoRA adapter on the hub is checked before it is fetched, fetched without what nothing needs, and counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from hub_world import World
from standin_repos import Repo

from llmjobs.cli import main
from llmjobs.engines import adapters
from llmjobs.engines.transformers.locate import locate
from llmjobs.errors import ModelError
from llmjobs.manifest import load_manifest
from llmjobs.manifest.models import ModelSpec

CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "maker/tiny", "r": 4}


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    return int(ended.value.code or 0)


def adapter_repo(**config: Any) -> Repo:
    return Repo(
        {
            "adapter_config.json": json.dumps(CONFIG | config).encode(),
            "adapter_model.safetensors": b"w" * 5000,
            "optimizer.pt": b"nobody needs this",
        }
    )


def test_an_adapter_on_the_hub_is_checked_before_it_is_fetched(world: World) -> None:
    world.hub.models["other/lora"] = adapter_repo(base_model_name_or_path="maker/else")
    with pytest.raises(ModelError, match="was trained on maker/else"):
        adapters.locate_adapter(ModelSpec(id="maker/tiny", adapter="other/lora"))
    assert not [path for path in world.paths() if path.endswith(".safetensors")]


def test_fetch_and_plan_count_an_adapter(world: World, tmp_path: Path, capsys: Any) -> None:
    world.hub.models["other/lora"] = adapter_repo()
    study = tmp_path / "study.yaml"
    text = "models: [{id: maker/tiny, adapter: other/lora}]\neval: {benchmarks: [{name: demo, limit: 2}]}\n"
    study.write_text(text)
    assert run("fetch", study) == 0
    out = capsys.readouterr().out
    assert "other/lora" in out and "complete" in out
    asked = world.paths()
    assert any("other/lora" in path for path in asked)
    assert not any(path.endswith("optimizer.pt") for path in asked)
    spec = load_manifest(study).models[0]
    found = adapters.locate_adapter(spec)
    assert found is not None and adapters.adapter_bytes(spec, found) == 5000
    world.go_offline()
    again = locate(spec)
    assert again.adapter == found
    assert adapters.settings_of(spec, again)["adapter_revision"] == found.revision


def test_a_quantized_checkpoint_is_refused_from_its_config_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmjobs.quantization.stored.is_installed", lambda name: False)
    files = dict(world.hub.models["maker/tiny"].files)
    config = json.loads(files["config.json"])
    for how, said in (
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "needs optimum and gptqmodel: pip install"),
        ({"quant_method": "compressed-tensors"}, "needs compressed-tensors: pip install compressed-tensors"),
    ):
        files["config.json"] = json.dumps(config | {"quantization_config": how}).encode()
        world.hub.models["maker/packed"] = Repo(dict(files))
        with pytest.raises(ModelError, match=said):
            locate(ModelSpec(id="maker/packed"))
        del world.hub.models["maker/packed"]
    assert not [path for path in world.paths() if path.endswith((".safetensors", ".bin"))]
