"""A conversation in the terminal: reading a line, streaming the answer, and the slash commands."""

import contextlib
import io
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Protocol, TextIO

from llmjobs.chat.agent import Agent, meter
from llmjobs.chat.endpoint_backend import EndpointBackend
from llmjobs.chat.slash_commands import COMMANDS, ChatState
from llmjobs.chat.store import ChatStore
from llmjobs.errors import LlmjobsError, RunFolderError
from llmjobs.exit_codes import EXIT_ERROR, EXIT_OK

# The slash commands.


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
