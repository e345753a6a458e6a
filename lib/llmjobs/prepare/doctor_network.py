"""Checks of what comes over the network: the hub, the token, access to each model, data, free disk space, servers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from llmjobs.engines.locate import DEMO_PREFIX, is_on_hub
from llmjobs.engines.registry import engine_of, local_path, locate, open_model
from llmjobs.errors import LlmjobsError
from llmjobs.fetch import data_item, model_item, walk
from llmjobs.hub.explain import network_reason, page
from llmjobs.hub.files import size_text
from llmjobs.hub.repositories import cached_snapshot, is_offline, token_state
from llmjobs.manifest import BenchmarkSpec, ModelSpec
from llmjobs.manifest.mtbench import JudgeSpec
from llmjobs.prepare.doctor_result import Check, Checkup, asked_of

ANSWER_S = 5.0
OFFLINE = "HF_HUB_OFFLINE is set"
FETCH = "run 'llmjobs fetch MANIFEST' online first"


def hub_silence() -> str | None:
    """Why the hub cannot be asked; None if it answers. One short try."""
    from huggingface_hub import constants

    get_session: Any = import_module("huggingface_hub.utils").get_session
    if is_offline():
        return OFFLINE
    try:
        answer = get_session().head(constants.ENDPOINT, timeout=ANSWER_S)
    except Exception as error:
        return f"{constants.ENDPOINT} cannot be reached ({network_reason(error)})"
    return f"{constants.ENDPOINT} answers with HTTP {answer.status_code}" if answer.status_code >= 500 else None


@contextmanager
def from_the_cache(silence: str | None) -> Iterator[None]:
    """Keep the body, and the processes that it starts, off a network that does not answer, so that nothing waits."""
    if silence is None or is_offline():
        yield
        return
    from datasets import config
    from huggingface_hub import constants

    places: list[Any] = [constants, config]
    before = [place.HF_HUB_OFFLINE for place in places]
    said = os.environ.get("HF_HUB_OFFLINE")
    try:
        for place in places:
            place.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
        os.environ.pop("HF_HUB_OFFLINE")
        if said is not None:
            os.environ["HF_HUB_OFFLINE"] = said


def check_network(checkup: Checkup) -> Iterator[Check]:
    """Whether the hub answers."""
    hub_models = [model for model in checkup.models if is_on_hub(model)]
    if checkup.hub_silent is None:
        yield Check("hub", "ok", "the hub answers")
    elif checkup.hub_silent == OFFLINE:
        yield Check("hub", "ok", "offline (HF_HUB_OFFLINE is set); only cached files are used")
    else:
        needed = any(not is_cached(model) for model in hub_models)
        line = f"{checkup.hub_silent}; working offline from the cache"
        remedy = "check the network, proxy or firewall; or run 'llmjobs fetch' on another machine and copy the cache"
        yield Check("hub", "failed" if needed else "warning", line, remedy)


def check_token(checkup: Checkup) -> Iterator[Check]:
    """Whether there is a token, where it comes from and whose it is; never the token itself."""
    state = token_state(ask=checkup.hub_silent is None)
    if state.error:
        yield Check(
            "token", "failed", _without(state.error, "token: "), "create a new one on the hub, then run: hf auth login"
        )
    elif state.source is None:
        remedy = "only gated or private models need one; run 'hf auth login' or set HF_TOKEN"
        yield Check("token", "ok", "no token", remedy)
    elif state.account:
        yield Check("token", "ok", f"from {state.source}, account {state.account}")
    else:
        yield Check("token", "ok", f"from {state.source}; its account is not known offline")


def check_models(checkup: Checkup) -> Iterator[Check]:
    """Each model of the manifest: whether it exists, access, cached or how much to download."""
    seen = set()
    for model in checkup.models:
        if asked_of(model) in seen:
            continue
        seen.add(asked_of(model))
        name = f"weights of {model.name}"
        try:
            found = _hub_model(name, model, checkup) if is_on_hub(model) else _local_model(name, model)
            if found.status == "failed":
                checkup.unusable.add(asked_of(model))
            yield found
        except LlmjobsError as error:
            checkup.unusable.add(asked_of(model))
            line = _without(_without(str(error), f"{model.id}: "), f"{model.name}: ")
            yield Check(name, "failed", line)


def _local_model(name: str, model: ModelSpec) -> Check:
    if model.id.startswith(DEMO_PREFIX):
        locate(model)
        return Check(name, "ok", "bundled")
    path = local_path(model)
    if path:
        engine_of(model).check_files(model, locate(model))
    return Check(name, "ok", f"the file {path}" if path and path.is_file() else f"in the folder {path}")


def _hub_model(name: str, model: ModelSpec, checkup: Checkup) -> Check:
    if checkup.hub_silent:
        local_path(model)
        if is_cached(model):
            engine_of(model).check_files(model, locate(model))
            return Check(name, "ok", "completely cached")
        return Check(name, "failed", f"{model.id} is not completely cached and the hub cannot be reached", FETCH)
    item = model_item(model)
    if item is None or item.repo is None:
        engine_of(model).check_files(model, locate(model))
        return Check(name, "ok", "completely cached")
    if (model.id, model.revision) not in checkup.counted:
        checkup.missing_bytes += item.missing_bytes
        checkup.counted.add((model.id, model.revision))
    gated = f"gated, with access ({page(model.id, 'model')}); " if item.repo.gated else ""
    if not item.missing_bytes:
        engine_of(model).check_files(model, locate(model))
    left = f"{size_text(item.missing_bytes)} of {size_text(item.total_bytes)} to download"
    return Check(name, "ok", f"{gated}{left if item.missing_bytes else 'cached'}")


def check_data(checkup: Checkup) -> Iterator[Check]:
    """The rows of each benchmark: bundled, in a folder, cached or on the hub."""
    for spec in walk(checkup.study, BenchmarkSpec) if checkup.study else ():
        name = f"rows of {spec.name}"
        local = spec.data or spec.file
        if local:
            there = Path(local).expanduser().exists()
            remedy = "" if there else "name a folder or file that exists"
            yield Check(name, "ok" if there else "failed", f"{local}{'' if there else ' does not exist'}", remedy)
            continue
        try:
            yield _hub_data(name, spec, checkup)
        except LlmjobsError as error:
            yield Check(name, "failed", str(error), FETCH if checkup.hub_silent else "")


def _hub_data(name: str, spec: BenchmarkSpec, checkup: Checkup) -> Check:
    hub = spec.benchmark().hub
    if hub is None:
        return Check(name, "ok", "bundled")
    if checkup.hub_silent and cached_snapshot("dataset", hub.path, spec.revision) is None:
        return Check(name, "failed", f"{hub.path} is not cached and the hub cannot be reached", FETCH)
    item = data_item(spec)
    if item is None or not item.missing_bytes:
        return Check(name, "ok", "bundled" if item is None else "cached")
    if checkup.hub_silent:
        return Check(name, "failed", item.offline_line())
    checkup.missing_bytes += item.missing_bytes
    return Check(name, "ok", f"about {size_text(item.missing_bytes)} to download")


def is_cached(model: ModelSpec) -> bool:
    """Whether a model of the hub is complete in the cache."""
    engine = engine_of(model)
    found = cached_snapshot("model", engine.repository(model), model.revision)
    return found is not None and engine.is_cached(model, found.name)


def _without(text: str, start: str) -> str:
    return text.removeprefix(start)


def check_endpoints(checkup: Checkup) -> Iterator[Check]:
    """Ask each server for its models and, for an eval, try its log-probabilities: about ten calls of one token."""
    found = walk(checkup.study, ModelSpec) if checkup.study else ()
    for spec in {(one.endpoint, one.id, one.name): one for one in found if one.endpoint}.values():
        name = f"server of {spec.name}"
        try:
            engine = open_model(spec)
        except LlmjobsError as error:
            yield Check(name, "failed", str(error).removeprefix(f"{spec.name} at "))
            continue
        replies = "messages" if spec.chat_template else "plain texts"
        if isinstance(spec, JudgeSpec) or checkup.study is None or checkup.study.eval is None:
            yield Check(name, "ok", f"answers {replies}")
            continue
        try:
            way = engine.scorer().probe()
            yield Check(name, "ok", f"answers {replies}; log-likelihoods by {way.path} ({way.reason})")
        except LlmjobsError as error:
            line = f"answers {replies}, without log-likelihoods: {str(error).removeprefix(f'{spec.name} at ')}"
            yield Check(name, "warning", line)
        finally:
            engine.close()
