"""From a command line to what a chat is held with: manifest first, options over it."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmjobs.chat.store import ChatStore
from llmjobs.errors import ManifestError, RunFolderError
from llmjobs.jobs.chat_model import default_model, is_manifest
from llmjobs.jobs.chat_session import ChatRequest
from llmjobs.manifest.chat_section import ChatSection
from llmjobs.manifest.load import load_manifest, validate
from llmjobs.manifest.model_section import ModelSpec
from llmjobs.manifest.overrides import apply_overrides
from llmjobs.manifest.yaml_source import Source

NAME = "chat"


def make_request(
    model: str | None,
    overrides: Sequence[str],
    settings: Mapping[str, Any],
    *,
    endpoint: str | None = None,
    endpoint_model: str | None = None,
    api_key_env: str | None = None,
    results: Path,
    name: str | None = None,
    resume: bool = False,
    conversation: int | None = None,
    timeout_s: float = 120.0,
) -> ChatRequest:
    """What to talk with.

    Raises:
        ManifestError: an option or the manifest is not valid.

    """
    if endpoint and not endpoint_model:
        raise ManifestError("--endpoint: name the model on the server with --model NAME")
    date = None
    if model and is_manifest(model) and not endpoint:
        study = load_manifest(model, overrides)
        spec, section = study.models[0], study.chat or ChatSection()
        name, date = name or study.name, study.date
    elif model is None and resume:
        spec, section = _held_with(results, name or NAME, conversation), ChatSection()
    else:
        spec, section = _without_manifest(model or default_model(), overrides, endpoint, endpoint_model, api_key_env)
    merged = ChatSection.model_validate(section.model_dump() | dict(settings))
    overridden = frozenset(settings)
    return ChatRequest(spec, merged, results, name or NAME, resume, conversation, overridden, timeout_s, date)


def _held_with(results: Path, name: str, conversation: int | None) -> ModelSpec:
    """The model that a conversation was held with."""
    with contextlib.closing(ChatStore.resume(results, name, conversation)) as store:
        saved = store.settings().get("spec")
    try:
        return ModelSpec.model_validate(saved)
    except ValidationError:
        raise RunFolderError(
            f"{store.folder.records}: does not say which model it was; name it on the command line"
        ) from None


def _without_manifest(
    model: str, overrides: Sequence[str], endpoint: str | None, endpoint_model: str | None, api_key_env: str | None
) -> tuple[ModelSpec, ChatSection]:
    entry: dict[str, Any] = {"id": endpoint_model if endpoint else model}
    entry |= {"endpoint": endpoint} if endpoint else {}
    entry |= {"api_key_env": api_key_env} if api_key_env else {}
    values: dict[str, Any] = {"name": NAME, "models": [entry]}
    study = validate(apply_overrides(Source("command line", values), overrides), Path())
    return study.models[0], study.chat or ChatSection()
