"""A conversation on disk: ``records.jsonl`` has one line per message, ``checkpoint.pkl`` is the cursor.

results/NAME/chat/001/{records.jsonl, timings.jsonl, checkpoint.pkl}
"""

import contextlib
import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmjobs.chat.agent import Agent
from llmjobs.chat.messages import Message
from llmjobs.errors import FingerprintError, RunFolderError
from llmjobs.work import checkpoint
from llmjobs.work.folder import RunFolder, UnitFolder
from llmjobs.work.journal import Journal, read_lines
from llmjobs.work.lock import exclusive

log = logging.getLogger(__name__)
JOB = "chat"


class ChatStore:
    """One conversation's files, open and locked until :meth:`close`."""

    def __init__(self, folder: UnitFolder, state: Mapping[str, Any] | None = None) -> None:
        """Open the files and cut them to the lengths in ``state``.

        Raises:
            LockedError: another process works in this conversation.

        """
        self.folder = folder
        self.state = state
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(exclusive(folder.path))
        saved = state or {}
        self._records = self._stack.enter_context(Journal(folder.records, int(saved.get("records_bytes", 0))))
        self._timings = self._stack.enter_context(Journal(folder.timings, int(saved.get("timings_bytes", 0))))

    @classmethod
    def create(cls, results: Path, name: str) -> "ChatStore":
        """Start a new conversation, numbered after the existing ones."""
        run = RunFolder.create(results, name)
        numbers = _numbers(run)
        return cls(run.unit(f"{JOB}/{(numbers[-1] if numbers else 0) + 1:03d}"))

    @classmethod
    def resume(cls, results: Path, name: str, number: int | None = None) -> "ChatStore":
        """Open the conversation with that number, or the newest one.

        Raises:
            RunFolderError: there is none, or no part of it was saved.

        """
        run = RunFolder.create(results, name)
        numbers = _numbers(run)
        if not numbers or (number is not None and number not in numbers):
            there = ", ".join(map(str, numbers)) or "none"
            wanted = f"conversation {number}" if number is not None else "a conversation"
            raise RunFolderError(f"{run.path / JOB}: there is no {wanted} to resume (available: {there})")
        folder = run.unit(f"{JOB}/{number or numbers[-1]:03d}")
        return cls(folder, _load(folder))

    @property
    def number(self) -> int:
        return int(self.folder.path.name)

    def begin(self, settings: Mapping[str, Any], agent: Agent) -> None:
        """Store what the conversation is held with."""
        self.note(agent, "settings", **settings)

    def turn(self, agent: Agent) -> None:
        """Write the newest exchange to disk, then move the cursor."""
        assert agent.last is not None
        user, assistant = agent.messages[-2:]
        reply = dataclasses.asdict(agent.last)
        times = {key: round(reply.pop(key), 6) for key in ("ttft_s", "real_s")}
        number = len(agent.messages) // 2
        for key in ("text", "reused_tokens", "thinking", "thinking_tokens"):
            del reply[key]
        reply |= agent.last.thinking_record()
        self._records.append(
            [{"turn": number, **user.to_builtin()}, {"turn": number, **assistant.to_builtin(), **reply}]
        )
        self._timings.append([{"turn": number, **times, "reused_tokens": agent.last.reused_tokens}])
        self._save(agent)

    def note(self, agent: Agent, event: str, **values: Any) -> None:
        """Write an event other than a turn to disk: settings, undo, reset, load."""
        self._records.append([{"event": event, **values}])
        self._save(agent)

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse to continue with another model.

        Raises:
            FingerprintError: with the difference.

        """
        saved = self.settings()
        for key in ("model", "revision", "endpoint"):
            if saved.get(key) != settings.get(key):
                raise FingerprintError(
                    f"{self.folder.path}: {key} was {saved.get(key)!r} and is now {settings.get(key)!r}; "
                    "use the same model, or start a new conversation without --resume"
                )

    def settings(self) -> dict[str, Any]:
        """The conversation's current settings, from the journal."""
        found: dict[str, Any] = {}
        for _, _, line in read_lines(self.folder.records, allow_torn=True):
            if line.get("event") == "settings":
                found |= {key: value for key, value in line.items() if key != "event"}
        return found

    def messages(self) -> list[Message]:
        """The conversation's messages, from the journal."""
        found: list[Message] = []
        for _, _, line in read_lines(self.folder.records, allow_torn=True):
            event = line.get("event")
            if event == "undo":
                del found[-2:]
            elif event == "reset":
                found = []
            elif event == "load":
                found = [Message(m["role"], m["content"]) for m in line["messages"]]
            elif event is None:
                found.append(Message(line["role"], line["content"]))
        return found[: len(found) // 2 * 2]

    def restore(self, agent: Agent) -> None:
        """Restore an agent's conversation, including its memory and random state."""
        if self.state is not None and "agent" in self.state:
            agent.restore(self.messages(), self.state["agent"])
        else:
            log.warning(
                "%s: no usable checkpoint; the messages are intact, but random numbers start over", self.folder.path
            )
            agent.messages = self.messages()

    def close(self) -> None:
        """Close the files and release the lock."""
        self._stack.close()

    def _save(self, agent: Agent) -> None:
        sizes = {"records_bytes": self._records.size, "timings_bytes": self._timings.size}
        checkpoint.save(self.folder.checkpoint, {**sizes, "agent": agent.state()})


def _numbers(run: RunFolder) -> list[int]:
    folder = run.path / JOB
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def _load(folder: UnitFolder) -> Mapping[str, Any]:
    """Return the cursor, or rebuild it from the journals: every complete pair of lines counts."""
    try:
        loaded = checkpoint.load(folder.checkpoint)
    except RunFolderError as error:
        log.warning("%s", error)
        loaded = None
    if loaded is not None:
        if loaded.remark:
            log.warning("%s", loaded.remark)
        return loaded.state
    if not folder.records.exists():
        raise RunFolderError(f"{folder.path}: no part of this conversation was saved; start a new one without --resume")
    end, turns, is_open = 0, 0, False
    for _, after, line in read_lines(folder.records, allow_torn=True):
        is_open = "event" not in line and not is_open
        end = end if is_open else after
        turns += "event" not in line and not is_open
    return {"records_bytes": end, "timings_bytes": _end_of_timings(folder.timings, turns)}


def _end_of_timings(path: Path, turns: int) -> int:
    """Length of the timings of the first ``turns`` turns ever answered: one line each."""
    end = 0
    lines = read_lines(path, allow_torn=True) if path.exists() and turns else ()
    for count, (_, after, _) in enumerate(lines, start=1):
        end = after
        if count == turns:
            break
    return end
