"""``fetch`` and ``doctor`` check before they fetch: problems are reported at once, with an exit code."""

import io
import json
from pathlib import Path

import pytest
from hub_world import GATED, MODEL, World, model_repo

from llmjobs import fetch
from llmjobs.engines.transformers.locate import locate
from llmjobs.errors import ModelError
from llmjobs.hub import repositories as hub
from llmjobs.hub.files import is_whole
from llmjobs.manifest import Manifest, ModelSpec


def told(model: str, *, dry_run: bool = True, **options: object) -> tuple[int, str]:
    out = io.StringIO()
    study = Manifest.model_validate({"name": "r", "models": [{"id": model, **options}]})
    code = fetch.run(study, dry_run=dry_run, stream=out)
    return code, out.getvalue()


def test_a_gated_model_without_access_is_no_success(world: World) -> None:
    code, text = told(GATED)
    assert code == 1
    assert f"cannot be downloaded: {GATED}: {GATED} is gated and there is no token" in text


def test_an_encoder_is_named_and_its_weights_are_not_fetched(world: World) -> None:
    repo = model_repo()
    repo.files["config.json"] = json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]}).encode()
    world.hub.models[MODEL] = repo
    code, text = told(MODEL, dry_run=False)
    assert code == 1
    assert "is an encoder (BertForMaskedLM)" in text
    assert not [path for path in world.paths() if "safetensors" in path]
    with pytest.raises(ModelError, match="is an encoder"):
        locate(ModelSpec(id=MODEL))


def test_a_missing_shard_is_not_all_there(world: World) -> None:
    repo = model_repo()
    repo.files["model-00001-of-00002.safetensors"] = repo.files.pop("model.safetensors")
    world.hub.models[MODEL] = repo
    code, text = told(MODEL, dry_run=False)
    assert code == 1
    assert "model-00002-of-00002.safetensors" in text and "complete:" not in text


def test_a_cache_that_lacks_a_shard_is_not_whole(world: World) -> None:
    folder = hub.repo_folder("model", MODEL) / "snapshots" / "c"
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model-00001-of-00002.safetensors"):
        (folder / name).write_text("{}")
    assert not is_whole(MODEL, "c")
    (folder / "model-00002-of-00002.safetensors").write_text("")
    assert is_whole(MODEL, "c")


def test_offline_and_not_whole_is_not_all_there(world: World) -> None:
    commit = world.hub.models[MODEL].commit
    (hub.repo_folder("model", MODEL) / "snapshots" / commit).mkdir(parents=True)
    hub.remember("model", MODEL, None, commit)
    world.go_offline()
    code, text = told(MODEL)
    assert code == 1
    assert "is not completely cached" in text and "complete:" not in text


def test_a_long_wait_is_said_and_not_waited(world: World, no_sleep: list[float]) -> None:
    world.hub.fail("/api/models/maker/tiny", times=99, status=429, headers={"Retry-After": "3600"})
    with pytest.raises(
        ModelError,
        match=r"rate limit of the hub is reached \(HTTP 429\), which asks to wait 60 min; run the same command",
    ):
        hub.resolve_model(MODEL)
    assert no_sleep == []


def test_a_short_wait_is_waited(world: World, no_sleep: list[float], caplog: pytest.LogCaptureFixture) -> None:
    world.hub.fail("/api/models/maker/tiny", times=1, status=429, headers={"Retry-After": "7"})
    hub.resolve_model(MODEL)
    assert no_sleep == [7.0]
    assert "the hub's rate limit is reached (HTTP 429); trying again in 7 s" in caplog.text


def test_a_page_of_a_hotels_network(world: World, no_sleep: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def page(*_: object, **__: object) -> None:
        json.loads("<html>log in</html>")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", page)
    with pytest.raises(ModelError, match="came from a web page or a proxy, not from the hub") as caught:
        hub.resolve_model(MODEL)
    assert "JSONDecodeError" not in str(caught.value)


def test_a_whole_model_is_all_there(world: World) -> None:
    assert told(MODEL, dry_run=False)[0] == 0
    assert Path(hub.repo_folder("model", MODEL)).is_dir()
