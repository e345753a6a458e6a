"""Fetching a model's files: cut, killed, slow, damaged, and what is left alone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_world import GATED, MODEL, TOKEN, World, model_repo
from huggingface_hub import constants
from standin_repos import Repo

from llmjobs.errors import ModelError
from llmjobs.hub import repositories as hub
from llmjobs.hub.files import ensure_model, fetch_files, is_whole, missing_bytes, missing_files, model_files

LIB = Path(__file__).parents[2] / "lib"


def fetch(model_id: str = MODEL) -> tuple[Path, list[int]]:
    repo = hub.inspect("model", model_id)
    arrived: list[int] = []
    return fetch_files(repo, model_files(repo), None, arrived.append), arrived


def weights(world: World, model_id: str = MODEL) -> bytes:
    return world.hub.models[model_id].files["model.safetensors"]


def test_a_model_arrives_whole(world: World) -> None:
    repo = hub.inspect("model", MODEL)
    wanted = model_files(repo)
    assert missing_bytes(repo, wanted) == sum(f.size_bytes for f in wanted)
    folder, arrived = fetch()
    assert (folder / "model.safetensors").read_bytes() == weights(world)
    assert sum(arrived) == sum(f.size_bytes for f in wanted)
    assert missing_files(repo, wanted) == [] and missing_bytes(repo, wanted) == 0
    assert hub.cached_snapshot("model", MODEL) == hub.cached_snapshot("model", MODEL, repo.commit) == folder


def test_pickles_stay_where_they_are(world: World) -> None:
    folder, _ = fetch()
    assert not (folder / "pytorch_model.bin").exists()
    assert not any("pytorch_model" in path for path in world.paths())


def test_no_safetensors(world: World) -> None:
    world.hub.models["maker/old"] = Repo({"config.json": b"{}", "pytorch_model.bin": b"x"})
    repo = hub.inspect("model", "maker/old")
    with pytest.raises(ModelError, match="no safetensors weights; .*pickle_weights: true"):
        model_files(repo)
    assert [f.path for f in model_files(repo, pickle_weights=True)] == ["config.json", "pytorch_model.bin"]


def test_other_weights_and_folders_are_not_chosen(world: World) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    more = ["consolidated.safetensors", "original/params.json", "onnx/model.onnx", "tf_model.h5", "model.gguf", "a.py"]
    world.hub.models["maker/big"] = Repo({name: b"x" for name in [*names, *more, "config.json", "chat_template.jinja"]})
    repo = hub.inspect("model", "maker/big")
    assert {f.path for f in model_files(repo)} == {*names, "config.json", "chat_template.jinja"}
    assert "a.py" in {f.path for f in model_files(repo, code=True)}


def test_the_token_does_not_follow_to_the_store(world: World) -> None:
    world.log_in(TOKEN)
    fetch(GATED)
    assert {seen.token for seen in world.hub.seen if not seen.store} == {TOKEN}
    assert {seen.token for seen in world.hub.seen if seen.store} == {None}


def test_gated_files_end_in_a_line(world: World) -> None:
    with pytest.raises(ModelError, match="is gated and there is no token"):
        fetch(GATED)


def test_a_cut_download_goes_on_where_it_was(
    world: World, no_sleep: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 16_384)
    world.hub.fail("model.safetensors/", cut_after=100_000)
    folder, _ = fetch()
    assert (folder / "model.safetensors").read_bytes() == weights(world)
    ranges = [seen.range for seen in world.hub.seen if seen.store and seen.method == "GET"]
    assert ranges[0] is None and ranges[1] is not None and ranges[1].startswith("bytes=")
    assert int(ranges[1][6:-1]) > 0


def test_a_killed_fetch_goes_on_where_it_was(world: World) -> None:
    world.hub.models[MODEL] = model_repo(2_000_000)
    world.hub.fail("model.safetensors/", bytes_per_s=1_000_000)
    code = (
        "from huggingface_hub import constants; constants.DOWNLOAD_CHUNK_SIZE = 16_384\n"
        "from llmjobs.hub import repositories as hub; from llmjobs.hub.files import *\n"
        f"r = hub.inspect('model', {MODEL!r}); fetch_files(r, model_files(r))"
    )
    env = {**os.environ, "HF_ENDPOINT": world.hub.url, "HF_HOME": str(world.home), "PYTHONPATH": str(LIB)}
    child = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE)
    blobs = hub.repo_folder("model", MODEL) / "blobs"
    deadline = time.monotonic() + 30
    while not any(p.stat().st_size > 200_000 for p in blobs.glob("*.llmjobs-part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    child.communicate()
    left = next(blobs.glob("*.llmjobs-part")).stat().st_size
    repo = hub.inspect("model", MODEL)
    assert 0 < left < 2_000_000
    assert missing_bytes(repo, [f for f in repo.files if f.path == "model.safetensors"]) == len(weights(world)) - left
    before = len(world.hub.seen)
    folder, arrived = fetch()
    assert (folder / "model.safetensors").read_bytes() == weights(world)
    assert f"bytes={left}-" in [seen.range for seen in world.hub.seen[before:]]
    assert not list(blobs.glob("*.llmjobs-part"))


def test_a_damaged_file_is_noticed_and_fetched_anew(world: World) -> None:
    world.hub.fail("model.safetensors/", corrupt=True)
    with pytest.raises(
        ModelError, match=r"model\.safetensors was damaged during download \(its hash differs\) and was deleted"
    ):
        fetch()
    folder, _ = fetch()
    assert (folder / "model.safetensors").read_bytes() == weights(world)


def test_a_damaged_small_file_is_noticed(world: World) -> None:
    world.hub.fail(r"resolve/.*/config\.json", corrupt=True)
    with pytest.raises(ModelError, match=r"config\.json was damaged during download"):
        fetch()
    folder, _ = fetch()
    assert (folder / "config.json").read_bytes() == world.hub.models[MODEL].files["config.json"]


def test_a_longer_part_file_is_not_trusted(world: World) -> None:
    repo = hub.inspect("model", MODEL)
    digest = next(f.sha256 for f in repo.files if f.path == "model.safetensors")
    blobs = hub.repo_folder("model", MODEL) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest}.llmjobs-part").write_bytes(b"x" * 400_000)
    folder, _ = fetch()
    assert (folder / "model.safetensors").read_bytes() == weights(world)


def test_a_busy_store_is_asked_again(world: World, no_sleep: list[float]) -> None:
    world.hub.fail("GET .*model.safetensors/", times=2, status=503)
    world.hub.fail("HEAD .*resolve/", times=1, status=500)
    folder, _ = fetch()
    assert (folder / "model.safetensors").read_bytes() == weights(world)
    assert no_sleep


def test_a_new_commit_shares_what_is_the_same(world: World) -> None:
    fetch()
    repo = world.hub.models[MODEL]
    repo.files["README.md"] = b"changed"
    before = len(world.hub.seen)
    folder, _ = fetch()
    assert folder.name == repo.commit
    assert not any(seen.store and seen.method == "GET" for seen in world.hub.seen[before:])


def test_ensuring_a_model_fetches_once_and_then_needs_no_network(world: World) -> None:
    commit = hub.resolve_model(MODEL)
    folder = ensure_model(MODEL, commit)
    assert (folder / "model.safetensors").read_bytes() == weights(world)
    world.go_offline()
    assert ensure_model(MODEL, commit) == folder
    with pytest.raises(ModelError, match="not completely cached and HF_HUB_OFFLINE is set"):
        ensure_model(GATED, commit)


def test_a_model_without_one_of_its_shards_is_not_whole(world: World) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}).encode()
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": index,
        **dict.fromkeys(shards, b"x"),
    }
    world.hub.models["maker/big"] = Repo(files)
    commit = hub.resolve_model("maker/big")
    folder = ensure_model("maker/big", commit)
    assert is_whole("maker/big", commit)
    (folder / shards[1]).unlink()
    assert not is_whole("maker/big", commit)
    ensure_model("maker/big", commit)
    assert is_whole("maker/big", commit)


def test_transformers_loads_offline_what_was_fetched(world: World) -> None:
    from transformers import AutoConfig, AutoTokenizer

    commit = hub.resolve_model(MODEL)
    fetch()
    world.go_offline()
    before = len(world.hub.seen)
    assert AutoTokenizer.from_pretrained(MODEL, revision=commit)("one two")["input_ids"]
    assert AutoConfig.from_pretrained(MODEL, revision=commit).model_type == "llama"
    assert hub.resolve_model(MODEL) == commit
    assert len(world.hub.seen) == before


def test_the_cache_stands_in_for_a_hub_out_of_reach(world: World, no_sleep: list[float]) -> None:
    commit = hub.resolve_model(MODEL)
    fetch()
    world.go_silent()
    assert hub.resolve_model(MODEL) == commit


def test_names_in_the_cache_wait_for_a_silent_hub_once(world: World, no_sleep: list[float]) -> None:
    other = "maker/other"
    world.hub.models[other] = world.hub.models[MODEL]
    commits = {name: hub.resolve_model(name) for name in (MODEL, other)}
    for name, commit in commits.items():
        ensure_model(name, commit)
    world.go_silent()
    assert {name: hub.resolve_model(name) for name in (MODEL, other, MODEL)} == commits
    assert len([wait for wait in no_sleep if wait]) == hub.TRIES_WITH_CACHE - 1, "the second name does not wait again"


def test_a_whole_model_is_loaded_without_asking_the_hub(world: World) -> None:
    """Transformers asks for a list of the repository's files, and for files that it lacks, where it is given a name."""
    from llmjobs.engines.registry import engine_of
    from llmjobs.engines.transformers.load import load_tokenizer
    from llmjobs.engines.transformers.locate import locate
    from llmjobs.manifest.models import ModelSpec

    spec = ModelSpec.model_validate(MODEL)
    fetch()
    located = locate(spec)
    before = len(world.hub.seen)
    assert load_tokenizer(spec, located)("one two")["input_ids"]
    assert engine_of(spec).context_length(spec, located) > 0
    assert [seen.path for seen in world.hub.seen[before:]] == []


def test_a_slow_download_moves_the_bar_as_it_goes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 16_384)
    world.hub.fail("model.safetensors/", bytes_per_s=1_000_000)
    _, arrived = fetch()
    assert sum(1 for size in arrived if size >= 16_384) > 10


def test_an_answer_that_is_not_a_hubs_is_told_so(world: World, no_sleep: list[float]) -> None:
    world.hub.fail("HEAD .*resolve/.*model.safetensors", times=99, status=200)
    with pytest.raises(ModelError, match=r"the answer for maker/tiny came from a web page or a proxy"):
        fetch()
