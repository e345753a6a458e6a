"""A chat in the terminal: the agent made or resumed, then the talk."""

import datetime
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmjobs.chat.agent import Agent
from llmjobs.chat.backend import Backend, Sampling
from llmjobs.chat.store import ChatStore
from llmjobs.chat.terminal import PipeReader, PromptReader, Reader, Terminal
from llmjobs.errors import EXIT_OK, RunFolderError, printable
from llmjobs.jobs.chat_backend import open_backend
from llmjobs.jobs.chat_model import identity, toy_note
from llmjobs.jobs.run_date import BEFORE_DATES
from llmjobs.manifest.chat_section import ChatSection
from llmjobs.manifest.model_section import ModelSpec


@dataclass(frozen=True)
class ChatRequest:
    """What was asked for on the command line and in the manifest."""

    spec: ModelSpec
    section: ChatSection
    results: Path
    name: str
    resume: bool = False
    conversation: int | None = None
    overridden: frozenset[str] = frozenset()
    """Settings given on the command line: on a resume they count, the others are the conversation's own."""
    timeout_s: float = 120.0
    date: datetime.date | None = None
    """What the chat template prints as today; a new conversation takes today, a resumed one keeps its own."""


def chat(request: ChatRequest, once: str | None = None) -> int:
    """Talk (or answer ``once``); returns the exit code.

    Raises:
        LlmjobsError: one line; what was said before is on disk.

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
    """An agent as a manifest's ``chat:`` section asks for it."""
    return Agent(
        backend,
        system=section.system,
        strategy=section.strategy,
        history=section.history,
        max_context=section.max_context,
        sampling=Sampling(section.max_new_tokens + thinking_tokens, section.temperature, section.top_p),
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
    print(f"{agent.backend.name}{room}, strategy {agent.strategy}{history}; /help lists the commands", file=sys.stderr)
    print(f"conversation {store.number} in {store.folder.path}", file=sys.stderr)
    for message in agent.messages[-2:] if request.resume else ():
        print(f"{'you' if message.role == 'user' else agent.backend.name}> {printable(message.content)}")


def _open_store(request: ChatRequest) -> ChatStore:
    if request.resume:
        return ChatStore.resume(request.results, request.name, request.conversation)
    return ChatStore.create(request.results, request.name)


def _section(request: ChatRequest, store: ChatStore) -> ChatSection:
    """On a resume the conversation's own settings, but for those given now."""
    if not request.resume:
        return request.section
    saved = {key: value for key, value in store.settings().items() if key in ChatSection.model_fields}
    given = request.section.model_dump(include=set(request.overridden))
    return ChatSection.model_validate(saved | given)


def _date(request: ChatRequest, store: ChatStore) -> datetime.date:
    """The conversation's own date; one from before dates were kept goes on with what was written then."""
    if not request.resume:
        return request.date or datetime.date.today()  # noqa: DTZ011 - the person's day
    kept = store.settings().get("date")
    try:
        return datetime.date.fromisoformat(str(kept)) if kept else BEFORE_DATES
    except ValueError:
        raise RunFolderError(f"{store.folder.records}: {printable(str(kept))[:40]!r} is not a date") from None


def _warn(line: str) -> None:
    print(f"llmjobs: {line}", file=sys.stderr)
