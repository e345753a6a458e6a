"""The commands that a person can give between two messages."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from llmjobs.chat.agent import Agent
from llmjobs.chat.messages import read_messages
from llmjobs.chat.strategies import STRATEGIES
from llmjobs.errors import LlmjobsError, printable

MAX_FILE_BYTES = 1 << 24


class Notebook(Protocol):
    """Where changes are written down (see :class:`llmjobs.chat.store.ChatStore`)."""

    def note(self, agent: Agent, event: str, **values: object) -> None:
        """Bring an event to the disk."""


@dataclass(frozen=True)
class Slash:
    """One command: what it takes, what it does."""

    takes: str
    does: str
    run: Callable[["Desk", str], str]


@dataclass
class Desk:
    """What commands work on."""

    agent: Agent
    notebook: Notebook
    is_open: bool = True

    def command(self, line: str) -> str:
        """Run ``/name argument``; returns what to show.

        Raises:
            LlmjobsError: an unknown command, or one that cannot be done.

        """
        name, _, argument = line[1:].strip().partition(" ")
        if name not in COMMANDS:
            meant = "".join(f"; did you mean /{near}?" for near in get_close_matches(name, COMMANDS, n=1))
            raise LlmjobsError(f"there is no command /{name[:40]}{meant or '; /help lists them'}")
        return COMMANDS[name].run(self, argument.strip())


def _help(desk: Desk, _: str) -> str:
    rows = [(f"/{name} {slash.takes}".rstrip(), slash.does) for name, slash in COMMANDS.items()]
    width = max(len(left) for left, _ in rows)
    keys = "Ctrl-C stops an answer, twice leaves. A line that begins with // is sent with one /."
    return "\n".join([*(f"{left.ljust(width)}  {right}" for left, right in rows), keys])


def _history(desk: Desk, argument: str) -> str:
    if not argument:
        shown = [f"{m.role:>9}  {printable(m.content)}" for m in desk.agent.messages]
        return "\n".join(shown) or "nothing was said yet"
    if argument not in ("on", "off"):
        raise LlmjobsError("/history takes on, off, or nothing (to show the conversation)")
    desk.agent.history = argument == "on"
    desk.notebook.note(desk.agent, "settings", history=desk.agent.history)
    return "every message is answered with the turns before it" if desk.agent.history else (
        "every message is answered alone; the conversation is still kept"
    )  # fmt: skip


def _tokens(desk: Desk, _: str) -> str:
    limit = desk.agent.max_context or desk.agent.backend.limit
    room = f" of {limit:,}" if limit else ""
    last = desk.agent.last
    sent = f"; the last message was sent with {last.prompt_tokens:,}" if last else ""
    return f"the whole conversation: {desk.agent.context_tokens():,}{room} tokens{sent}"


def _strategy(desk: Desk, argument: str) -> str:
    if not argument:
        return f"strategy: {desk.agent.strategy} (there are: {', '.join(STRATEGIES)})"
    if argument not in STRATEGIES:
        raise LlmjobsError(f"/strategy: {argument[:40]!r} is not one of {', '.join(STRATEGIES)}")
    desk.agent.choose(argument)
    desk.notebook.note(desk.agent, "settings", strategy=argument)
    return f"strategy: {argument}"


def _reset(desk: Desk, _: str) -> str:
    desk.agent.reset()
    desk.notebook.note(desk.agent, "reset")
    return "the conversation begins anew"


def _undo(desk: Desk, _: str) -> str:
    if not desk.agent.undo():
        return "there is nothing to undo"
    desk.notebook.note(desk.agent, "undo")
    return f"the last exchange is gone; {len(desk.agent.messages) // 2} left"


def _save(desk: Desk, argument: str) -> str:
    path = _path(argument, "save")
    values = [message.to_builtin() for message in desk.agent.messages]
    system = [{"role": "system", "content": desk.agent.system}] if desk.agent.system else []
    try:
        path.write_text(json.dumps({"messages": system + values}, ensure_ascii=False, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise LlmjobsError(f"{path}: cannot be written: {error.strerror}") from None
    return f"{len(values)} messages in {path}"


def _load(desk: Desk, argument: str) -> str:
    path = _path(argument, "load")
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
        value = json.loads(raw) if len(raw) <= MAX_FILE_BYTES else None
    except OSError as error:
        raise LlmjobsError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise LlmjobsError(f'{path}: is no conversation; it holds {{"messages": […]}} as /save writes it')
    messages = read_messages(value.get("messages"))
    system = messages.pop(0).content if messages[0].role == "system" else None
    if [m.role for m in messages] != ["user", "assistant"] * (len(messages) // 2):
        raise LlmjobsError(f"{path}: user and assistant must take turns, the assistant last")
    desk.agent.system = system
    desk.agent.replace(messages)
    desk.notebook.note(desk.agent, "settings", system=system)
    desk.notebook.note(desk.agent, "load", messages=[message.to_builtin() for message in messages])
    return f"{len(messages)} messages from {path}"


def _system(desk: Desk, argument: str) -> str:
    if not argument:
        return f"system: {printable(desk.agent.system or 'none')} (/system TEXT changes it, /system none removes it)"
    desk.agent.system = None if argument == "none" else argument
    desk.notebook.note(desk.agent, "settings", system=desk.agent.system)
    return "the system message is changed" if desk.agent.system else "there is no system message now"


def _exit(desk: Desk, _: str) -> str:
    desk.is_open = False
    return ""


def _path(argument: str, name: str) -> Path:
    if not argument or "\0" in argument:
        raise LlmjobsError(f"/{name} FILE: name a file")
    return Path(argument).expanduser()


COMMANDS: dict[str, Slash] = {
    "help": Slash("", "this list", _help),
    "history": Slash("[on|off]", "show the conversation; answer with the turns before, or without", _history),
    "tokens": Slash("", "tokens of the conversation and of what was sent last", _tokens),
    "strategy": Slash("[NAME]", "what is sent when the conversation outgrows the context", _strategy),
    "reset": Slash("", "begin anew", _reset),
    "undo": Slash("", "forget the last exchange", _undo),
    "save": Slash("FILE", "write the conversation as JSON", _save),
    "load": Slash("FILE", "take a saved conversation in the place of this one", _load),
    "system": Slash("[TEXT]", "show or change the system message", _system),
    "exit": Slash("", "leave (also Ctrl-D); --resume goes on", _exit),
}
