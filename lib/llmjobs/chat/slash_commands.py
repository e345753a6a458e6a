"""The slash commands of the terminal: each one's argument, what it does, and its function."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from llmjobs.chat.agent import Agent
from llmjobs.chat.messages import read_messages
from llmjobs.errors import LlmjobsError, printable
from llmjobs.extensions import STRATEGIES

MAX_FILE_BYTES = 1 << 24


class Notebook(Protocol):
    """Where changes are stored (see :class:`llmjobs.chat.store.ChatStore`)."""

    def note(self, agent: Agent, event: str, **values: object) -> None:
        """Write an event to disk."""


@dataclass(frozen=True)
class SlashCommand:
    """One command: its argument and its function."""

    takes: str
    does: str
    run: Callable[["ChatState", str], str]


@dataclass
class ChatState:
    """What the commands work on."""

    agent: Agent
    notebook: Notebook
    is_open: bool = True

    def command(self, line: str) -> str:
        """Run ``/name argument``; return the text to show.

        Raises:
            LlmjobsError: the command is unknown, or cannot be run.

        """
        name, _, argument = line[1:].strip().partition(" ")
        if name not in COMMANDS:
            meant = "".join(f"; did you mean /{near}?" for near in get_close_matches(name, COMMANDS, n=1))
            raise LlmjobsError(f"there is no command /{name[:40]}{meant or '; /help lists them'}")
        return COMMANDS[name].run(self, argument.strip())


def _help(chat: ChatState, _: str) -> str:
    rows = [(f"/{name} {slash.takes}".rstrip(), slash.does) for name, slash in COMMANDS.items()]
    width = max(len(left) for left, _ in rows)
    keys = "Ctrl-C stops an answer; press it twice to quit. To send a message that begins with /, type // instead."
    return "\n".join([*(f"{left.ljust(width)}  {right}" for left, right in rows), keys])


def _history(chat: ChatState, argument: str) -> str:
    if not argument:
        shown = [f"{m.role:>9}  {printable(m.content)}" for m in chat.agent.messages]
        return "\n".join(shown) or "there are no messages yet"
    if argument not in ("on", "off"):
        raise LlmjobsError("use /history on, /history off, or /history to show the conversation")
    chat.agent.history = argument == "on"
    chat.notebook.note(chat.agent, "settings", history=chat.agent.history)
    return "messages are answered with the earlier turns" if chat.agent.history else (
        "each message is answered alone; the conversation is still kept"
    )  # fmt: skip


def _tokens(chat: ChatState, _: str) -> str:
    limit = chat.agent.max_context or chat.agent.backend.limit
    room = f" of {limit:,}" if limit else ""
    last = chat.agent.last
    sent = f"; the last prompt had {last.prompt_tokens:,}" if last else ""
    return f"the whole conversation: {chat.agent.context_tokens():,}{room} tokens{sent}"


def _strategy(chat: ChatState, argument: str) -> str:
    if not argument:
        return f"strategy: {chat.agent.strategy} (available: {', '.join(STRATEGIES)})"
    if argument not in STRATEGIES:
        raise LlmjobsError(f"/strategy: {argument[:40]!r} is not one of {', '.join(STRATEGIES)}")
    chat.agent.choose(argument)
    chat.notebook.note(chat.agent, "settings", strategy=argument)
    return f"strategy: {argument}"


def _reset(chat: ChatState, _: str) -> str:
    chat.agent.reset()
    chat.notebook.note(chat.agent, "reset")
    return "started a new conversation"


def _undo(chat: ChatState, _: str) -> str:
    if not chat.agent.undo():
        return "there is nothing to undo"
    chat.notebook.note(chat.agent, "undo")
    return f"removed the last exchange; {len(chat.agent.messages) // 2} left"


def _save(chat: ChatState, argument: str) -> str:
    path = _path(argument, "save")
    values = [message.to_builtin() for message in chat.agent.messages]
    system = [{"role": "system", "content": chat.agent.system}] if chat.agent.system else []
    try:
        path.write_text(json.dumps({"messages": system + values}, ensure_ascii=False, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise LlmjobsError(f"{path}: cannot be written: {error.strerror}") from None
    return f"saved {len(values)} messages to {path}"


def _load(chat: ChatState, argument: str) -> str:
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
        raise LlmjobsError(f'{path}: is not a conversation; /save writes {{"messages": […]}}')
    messages = read_messages(value.get("messages"))
    system = messages.pop(0).content if messages[0].role == "system" else None
    if [m.role for m in messages] != ["user", "assistant"] * (len(messages) // 2):
        raise LlmjobsError(f"{path}: user and assistant must take turns, the assistant last")
    chat.agent.system = system
    chat.agent.replace(messages)
    chat.notebook.note(chat.agent, "settings", system=system)
    chat.notebook.note(chat.agent, "load", messages=[message.to_builtin() for message in messages])
    return f"loaded {len(messages)} messages from {path}"


def _system(chat: ChatState, argument: str) -> str:
    if not argument:
        return f"system: {printable(chat.agent.system or 'none')} (/system TEXT changes it, /system none removes it)"
    chat.agent.system = None if argument == "none" else argument
    chat.notebook.note(chat.agent, "settings", system=chat.agent.system)
    return "changed the system message" if chat.agent.system else "removed the system message"


def _exit(chat: ChatState, _: str) -> str:
    chat.is_open = False
    return ""


def _path(argument: str, name: str) -> Path:
    if not argument or "\0" in argument:
        raise LlmjobsError(f"/{name} FILE: add the name of a file")
    return Path(argument).expanduser()


COMMANDS: dict[str, SlashCommand] = {
    "help": SlashCommand("", "this list", _help),
    "history": SlashCommand("[on|off]", "show the conversation; answer with or without the earlier turns", _history),
    "tokens": SlashCommand("", "tokens of the conversation and of the last prompt", _tokens),
    "strategy": SlashCommand("[NAME]", "what to send when the conversation no longer fits the context", _strategy),
    "reset": SlashCommand("", "start a new conversation", _reset),
    "undo": SlashCommand("", "forget the last exchange", _undo),
    "save": SlashCommand("FILE", "write the conversation as JSON", _save),
    "load": SlashCommand("FILE", "replace this conversation with a saved one", _load),
    "system": SlashCommand("[TEXT]", "show or change the system message", _system),
    "exit": SlashCommand("", "exit (also Ctrl-D); --resume continues the conversation", _exit),
}
