"""A conversation in the terminal: reading a line, streaming the answer, and the slash commands."""

import contextlib
import io
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol, TextIO

from llmjobs.chat.agent import Agent, meter
from llmjobs.chat.endpoint_backend import EndpointBackend
from llmjobs.chat.messages import read_messages
from llmjobs.chat.store import ChatStore
from llmjobs.errors import EXIT_ERROR, EXIT_OK, LlmjobsError, RunFolderError, printable
from llmjobs.extensions import STRATEGIES

# The slash commands.

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
    keys = "Ctrl-C stops an answer, twice leaves. A line that begins with // is sent with one /."
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


# The conversation itself. If the input is a pipe, each line is one turn.

EXIT_INTERRUPTED = 130
TWICE_S = 2.0
"""Pressing Ctrl-C twice within this many seconds ends the chat."""
PROMPT = "you> "


class Reader(Protocol):
    """Source of the person's lines."""

    def read(self) -> str:
        """Return the next line.

        Raises:
            EOFError: there is none.
            KeyboardInterrupt: Ctrl-C was pressed.

        """


class PipeReader:
    """Reads lines from a stream that is not a terminal."""

    def __init__(self, stream: TextIO) -> None:
        """Read from ``stream``; invalid UTF-8 does not end the conversation."""
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

    def read(self) -> str:
        """Return the next line without its line break."""
        line = self._stream.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")


class PromptReader:
    """Line editing, history and command completion with prompt_toolkit."""

    def __init__(self, earlier: list[str]) -> None:
        """The history starts with the ``earlier`` messages and stays in memory only."""
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import InMemoryHistory

        names = WordCompleter([f"/{name}" for name in COMMANDS], sentence=True)
        self._session: PromptSession[str] = PromptSession(
            history=InMemoryHistory(earlier), completer=names, complete_while_typing=False
        )

    def read(self) -> str:
        return self._session.prompt(PROMPT)


class Terminal:
    """Runs the chat until the person leaves."""

    def __init__(self, agent: Agent, store: ChatStore, reader: Reader, *, is_terminal: bool) -> None:
        """Without ``is_terminal``, only the answers go to standard output, one after the other."""
        self.agent, self.store, self.reader, self.is_terminal = agent, store, reader, is_terminal
        self.chat = ChatState(agent, store)
        self._stopped_at = -TWICE_S
        self._failed = False
        self._noted: dict[str, str] = {}

    def run(self) -> int:
        """Run the chat; return the exit code: 0, 1 if a turn from a pipe failed, 130 after two Ctrl-C."""
        while self.chat.is_open:
            try:
                line = self.reader.read()
                if line.strip():
                    self.take(line)
            except EOFError:
                break
            except KeyboardInterrupt:
                if self._stops_twice():
                    return EXIT_INTERRUPTED
            except RunFolderError:
                raise
            except LlmjobsError as error:
                self._failed = True
                self._say(f"llmjobs: {error}")
        return EXIT_ERROR if self._failed and not self.is_terminal else EXIT_OK

    def take(self, line: str) -> None:
        """Handle one line: a command, or a message to answer."""
        line = whole(line)
        if line.startswith("/") and not line.startswith("//"):
            if shown := self.chat.command(line):
                self._say(shown)
            return
        self.answer(line[1:] if line.startswith("//") else line)

    def answer(self, message: str) -> None:
        """Stream the answer; Ctrl-C stops it and keeps the text so far."""
        pieces = self.agent.stream(whole(message))
        try:
            with contextlib.closing(pieces):  # type: ignore[type-var]
                self._stream(pieces)
        except KeyboardInterrupt:
            print(flush=True)
            if self.agent.last is None:
                self._say("stopped before the first word; the message was discarded")
            if self._stops_twice():
                self.chat.is_open = False
        if self.agent.last is not None:
            with undisturbed():
                self.store.turn(self.agent)
                self._note_parameters()
            if self.is_terminal:
                self._say(f"[{meter(self.agent, self.agent.last)}]", dim=True)

    def _note_parameters(self) -> None:
        """Record, once, which parameters the endpoint does not accept."""
        backend = self.agent.backend
        changes = dict(backend.parameters.changes) if isinstance(backend, EndpointBackend) else {}
        if changes != self._noted:
            self._noted = changes
            self.store.note(self.agent, "parameters", changes=changes)

    def _stream(self, pieces: Iterator[str]) -> None:
        has_text = False
        try:
            for piece in pieces:
                has_text = has_text or bool(piece)
                sys.stdout.write(visible(piece))
                sys.stdout.flush()
        finally:
            if has_text:
                print(flush=True)

    def _stops_twice(self) -> bool:
        now = time.monotonic()
        twice, self._stopped_at = now - self._stopped_at < TWICE_S, now
        if not twice and self.is_terminal:
            self._say("press Ctrl-C again to quit; /help lists the commands", dim=True)
        return twice

    def _say(self, text: str, *, dim: bool = False) -> None:
        colour = dim and sys.stderr.isatty()
        print(f"\x1b[2m{text}\x1b[0m" if colour else text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Delay Ctrl-C until the body has finished, so a file is written completely."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)
    if came:
        raise KeyboardInterrupt


def whole(text: str) -> str:
    """Replace invalid UTF-8 by question marks, so every tokenizer accepts the text."""
    return text.encode("utf-8", "replace").decode()


def visible(text: str) -> str:
    """Show an answer's control characters instead of sending them to the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
