"""Names, revisions, tokens and access, against the stand-in."""

import pytest
from hub_world import DATASET, GATED, MODEL, TOKEN, World

from llmjobs.errors import DataError, LlmjobsError, ModelError
from llmjobs.hub import repositories as hub


def line(call: object, *arguments: object, error: type[LlmjobsError] = ModelError) -> str:
    with pytest.raises(error) as caught:
        call(*arguments)  # type: ignore[operator]
    text = str(caught.value)
    assert "\n" not in text and TOKEN not in text
    return text


def test_a_name_becomes_a_commit(world: World) -> None:
    commit = world.hub.models[MODEL].commit
    assert hub.resolve_model(MODEL) == hub.resolve_model(MODEL, "main") == hub.resolve_model(MODEL, commit) == commit
    assert hub.resolve_dataset(DATASET) == world.hub.datasets[DATASET].commit


def test_files_with_sizes_and_hashes(world: World) -> None:
    repo = hub.inspect("model", MODEL)
    weights = next(f for f in repo.files if f.path == "model.safetensors")
    assert weights.size_bytes == len(world.hub.models[MODEL].files["model.safetensors"])
    assert weights.sha256 is not None and not repo.gated
    assert hub.inspect("model", GATED).gated, "a gated model's card is public"


def test_gated_without_a_token(world: World) -> None:
    text = line(hub.check_access, "model", GATED)
    assert f"is gated and there is no token; request access at {world.hub.url}/{GATED}, then run" in text


@pytest.mark.parametrize("file", [False, True])
def test_a_token_without_access(world: World, file: bool) -> None:
    world.log_in("hf_other", file=file)
    text = line(hub.check_access, "model", GATED)
    source = str(world.home / "token") if file else "HF_TOKEN"
    assert f"the token (from {source}) does not have access yet; request it at {world.hub.url}/{GATED} and wait" in text


def test_a_token_with_access(world: World) -> None:
    world.log_in(TOKEN)
    hub.check_access("model", GATED)
    assert hub.token_state(ask=True) == hub.TokenState("HF_TOKEN", "ada")


def test_a_token_that_is_not_valid(world: World) -> None:
    world.log_in("hf_revoked")
    assert "the token (from HF_TOKEN) is not valid" in line(hub.resolve_model, MODEL)
    state = hub.token_state(ask=True)
    assert state.account is None and state.error is not None and "is not valid" in state.error


def test_no_token(world: World) -> None:
    assert hub.token_state(ask=True) == hub.TokenState(None)


def test_a_wrong_name_is_told_apart_from_no_access(world: World) -> None:
    text = line(hub.resolve_model, "maker/tinny")
    assert "there is no model maker/tinny on the hub, or it is private and needs a token" in text
    world.log_in(TOKEN)
    assert "or it is private and the token (from HF_TOKEN) cannot see it" in line(hub.resolve_model, "maker/tinny")
    text = line(hub.resolve_dataset, "cais/mlmu", error=DataError)
    assert "there is no data set cais/mlmu on the hub" in text


def test_a_name_that_cannot_be_one(world: World) -> None:
    assert "is neither a name on the hub (OWNER/NAME)" in line(hub.resolve_model, "no//such name")


def test_a_removed_revision(world: World) -> None:
    text = line(hub.resolve_model, MODEL, "0" * 40)
    assert f"{MODEL} does not have this revision (any more); choose one listed at {world.hub.url}/{MODEL}" in text


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(world: World, no_sleep: list[float], status: int) -> None:
    world.hub.fail("/api/models/", times=2, status=status)
    assert hub.resolve_model(MODEL) == world.hub.models[MODEL].commit
    assert no_sleep == [0.01, 0.02]


def test_the_hubs_wish_to_wait_is_kept(world: World, no_sleep: list[float]) -> None:
    world.hub.fail("/api/models/", status=429, headers={"Retry-After": "7"})
    hub.resolve_model(MODEL)
    assert no_sleep == [7.0]


def test_a_hub_that_stays_busy_ends_in_a_line(world: World, no_sleep: list[float]) -> None:
    world.hub.fail("/api/models/", times=99, status=503)
    assert "the hub answered 503 to every attempt" in line(hub.resolve_model, MODEL)
    assert len(no_sleep) == hub.TRIES - 1


def test_no_network(world: World, no_sleep: list[float]) -> None:
    world.go_silent()
    assert "the hub cannot be reached" in line(hub.resolve_model, MODEL)


def test_offline_without_cache(world: World) -> None:
    world.go_offline()
    text = line(hub.resolve_model, MODEL)
    assert "not completely cached and HF_HUB_OFFLINE is set; run 'llmjobs fetch'" in text
    assert not world.hub.seen
