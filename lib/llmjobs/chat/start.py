"""Start a chat session from the command line: model, settings, a new or a resumed conversation."""

import contextlib
import datetime
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmjobs.chat.agent import Agent
from llmjobs.chat.backend import Backend, Sampling
from llmjobs.chat.open_backend import open_backend
from llmjobs.chat.store import ChatStore
from llmjobs.chat.terminal import PipeReader, PromptReader, Reader, Terminal
from llmjobs.demo import DEMO_MODELS
from llmjobs.engines.registry import locate
from llmjobs.errors import ManifestError, RunFolderError, printable
from llmjobs.exit_codes import EXIT_OK
from llmjobs.manifest.chat import ChatSection
from llmjobs.manifest.load import load_manifest, validate
from llmjobs.manifest.models import ModelSpec
from llmjobs.manifest.overrides import apply_overrides
from llmjobs.manifest.yaml_source import Source
from llmjobs.work.folder import BEFORE_DATES

# Which model to chat with if none is named, and how it is described in the conversation's record.

SMALL_INSTRUCT = (
    "HuggingFaceTB/SmolLM2-360M-Instruct",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "meta-llama/Llama-3.2-1B-Instruct",
    "Qwen/Qwen2.5-1.5B-Instruct",
    "allenai/OLMo-2-0425-1B-Instruct",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "google/gemma-2-2b-it",
)
"""Models to look for in the cache, in this order."""
DEMO = "llmjobs/demo-base"


def default_model() -> str:
    """Return a small instruct model that is in the cache, otherwise the bundled demo model."""
    from huggingface_hub import try_to_load_from_cache

    for name in SMALL_INSTRUCT:
        if isinstance(try_to_load_from_cache(name, "config.json"), str) and _has_weights(name):
            return name
    return DEMO


def _has_weights(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)


KNOWN_LINES = ("My name is Ben.", "What is my name?", "I live in Paris.", "Where do I live?")
"""Questions that demo-base answers correctly."""


def toy_note(spec: ModelSpec) -> str | None:
    """What to say to somebody who chats with a demo model; None for any other model."""
    if spec.endpoint or spec.id.removeprefix("llmjobs/") not in DEMO_MODELS:
        return None
    if spec.id != DEMO:
        return f"{spec.id} is a toy, not trained on conversations; try {DEMO}, or a real model: {SMALL_INSTRUCT[0]}"
    lines = " / ".join(KNOWN_LINES)
    return (
        f"{spec.id} is a toy with a million parameters that knows a few hundred words. Try: {lines} "
        f"For a real model: llmjobs chat {SMALL_INSTRUCT[0]}"
    )


def is_manifest(argument: str) -> bool:
    """Whether the argument names a manifest rather than a model."""
    return argument.endswith((".yaml", ".yml")) and not Path(argument).is_dir() and argument not in DEMO_MODELS


def identity(spec: ModelSpec) -> dict[str, Any]:
    """What a conversation is held with: the manifest's entry, and what must not change."""
    revision = None
    if not spec.endpoint:
        revision = locate(spec).revision
    return {
        "model": spec.id,
        "revision": revision,
        "endpoint": spec.endpoint,
        "spec": spec.model_dump(mode="json"),
    }


# A chat in the terminal: the agent made or resumed, then the talk.


@dataclass(frozen=True)
class ChatRequest:
    """What the command line and the manifest ask for."""

    spec: ModelSpec
    section: ChatSection
    results: Path
    name: str
    resume: bool = False
    conversation: int | None = None
    overridden: frozenset[str] = frozenset()
    """Settings given on the command line. On a resume these apply; all others are the conversation's."""
    timeout_s: float = 120.0
    date: datetime.date | None = None
    """The date that the chat template prints as today; a new conversation takes today's, a resumed one keeps its own.
    """


def chat(request: ChatRequest, once: str | None = None) -> int:
    """Chat, or answer ``once``; return the exit code.

    Raises:
        LlmjobsError: with one line; earlier turns are on disk.

    """
    store = _open_store(request)
    try:
        section = _section(request, store)
        date = _date(request, store)
        settings = {**section.model_dump(mode="json"), **identity(request.spec), "date": date.isoformat()}
        if request.resume:
            store.check(settings)
        backend = open_backend(request.spec, timeout_s=request.timeout_s, warn=_warn, date=date)
        try:
            return _talk(make_agent(backend, section, request.spec.thinking_tokens), store, settings, request, once)
        finally:
            backend.close()
    finally:
        store.close()


def make_agent(backend: Backend, section: ChatSection, thinking_tokens: int = 0) -> Agent:
    """Make an agent as a manifest's ``chat:`` section describes it."""
    return Agent(
        backend,
        system=section.system,
        strategy=section.strategy,
        history=section.history,
        max_context=section.max_context,
        sampling=Sampling(section.max_new_tokens, section.temperature, section.top_p, thinking_tokens=thinking_tokens),
        seed=section.seed,
    )


def _talk(agent: Agent, store: ChatStore, settings: Mapping[str, Any], request: ChatRequest, once: str | None) -> int:
    if request.resume:
        store.restore(agent)
    if not request.resume or store.settings() != settings:
        store.begin(settings, agent)
    is_terminal = once is None and sys.stdin.isatty() and sys.stdout.isatty()
    terminal = Terminal(agent, store, _reader(agent, is_terminal), is_terminal=is_terminal)
    if note := toy_note(request.spec):
        _warn(note)
    if once is not None:
        terminal.answer(once)
        return EXIT_OK
    if is_terminal:
        _greet(agent, store, request)
    return terminal.run()


def _reader(agent: Agent, is_terminal: bool) -> Reader:
    if is_terminal:
        return PromptReader([message.content for message in agent.messages[::2]])
    return PipeReader(sys.stdin)


def _greet(agent: Agent, store: ChatStore, request: ChatRequest) -> None:
    limit = agent.max_context or agent.backend.limit
    room = f", {limit:,} tokens" if limit else ""
    history = "" if agent.history else ", history off"
    print(
        f"{agent.backend.name}{room}, strategy {agent.strategy}{history}; type /help for the commands", file=sys.stderr
    )
    print(f"conversation {store.number} in {store.folder.path}", file=sys.stderr)
    for message in agent.messages[-2:] if request.resume else ():
        print(f"{'you' if message.role == 'user' else agent.backend.name}> {printable(message.content)}")


def _open_store(request: ChatRequest) -> ChatStore:
    if request.resume:
        return ChatStore.resume(request.results, request.name, request.conversation)
    return ChatStore.create(request.results, request.name)


def _section(request: ChatRequest, store: ChatStore) -> ChatSection:
    """On a resume, the conversation's settings, replaced by those given now."""
    if not request.resume:
        return request.section
    saved = {key: value for key, value in store.settings().items() if key in ChatSection.model_fields}
    given = request.section.model_dump(include=set(request.overridden))
    return ChatSection.model_validate(saved | given)


def _date(request: ChatRequest, store: ChatStore) -> datetime.date:
    """The conversation's date. One from before dates were stored continues with the date that was printed then."""
    if not request.resume:
        return request.date or datetime.date.today()  # noqa: DTZ011 - the person's day
    kept = store.settings().get("date")
    try:
        return datetime.date.fromisoformat(str(kept)) if kept else BEFORE_DATES
    except ValueError:
        raise RunFolderError(f"{store.folder.records}: {printable(str(kept))[:40]!r} is not a date") from None


def _warn(line: str) -> None:
    print(f"llmjobs: {line}", file=sys.stderr)


# From the command line to a request: first the manifest, then the options.

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
    """Combine the manifest and the options into a request.

    Raises:
        ManifestError: an option or the manifest is not valid.

    """
    if endpoint and not endpoint_model:
        raise ManifestError("--endpoint: add --model NAME, the name of the model on the server")
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
    """Return the model that a conversation was held with."""
    with contextlib.closing(ChatStore.resume(results, name, conversation)) as store:
        saved = store.settings().get("spec")
    try:
        return ModelSpec.model_validate(saved)
    except ValidationError:
        raise RunFolderError(
            f"{store.folder.records}: does not contain the model; name it on the command line"
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
