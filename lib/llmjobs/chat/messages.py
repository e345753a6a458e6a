"""A conversation: an optional system message, then user and assistant in turn."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llmjobs.errors import DataError

Role = Literal["system", "user", "assistant"]
MAX_CHARACTERS = 1 << 20
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Message:
    """One message and its role."""

    role: Role
    content: str

    def to_builtin(self) -> dict[str, str]:
        """The form that chat templates and endpoints take."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A user's message and its answer: the unit that a strategy keeps or drops as a whole."""

    user: Message
    assistant: Message


@dataclass(frozen=True, slots=True)
class Parts:
    """A conversation that waits for an answer, taken apart."""

    system: Message | None
    exchanges: tuple[Exchange, ...]
    question: Message

    def compose(self, exchanges: Iterable[Exchange], note: str = "") -> tuple[Message, ...]:
        """Return the messages to send with only these exchanges; ``note`` is appended to the system message."""
        texts = [text for text in (self.system.content if self.system else "", note) if text]
        system = (Message("system", "\n\n".join(texts)),) if texts else ()
        pairs = (message for exchange in exchanges for message in (exchange.user, exchange.assistant))
        return (*system, *pairs, self.question)


def split(messages: Sequence[Message]) -> Parts:
    """Split a conversation into its parts.

    Raises:
        DataError: the roles do not alternate, or the last message is not the user's.

    """
    rest = list(messages)
    system = rest.pop(0) if rest and rest[0].role == "system" else None
    for place, message in enumerate(rest):
        wanted = "assistant" if place % 2 else "user"
        if message.role != wanted:
            raise DataError(
                f"message {place + 1} has the role {message.role}, but {wanted} must come next: "
                "user and assistant take turns"
            )
    if len(rest) % 2 == 0:
        raise DataError("the last message must be the user's; add one")
    pairs = zip(rest[:-1:2], rest[1::2], strict=True)
    return Parts(system, tuple(Exchange(user, assistant) for user, assistant in pairs), rest[-1])


def read_messages(values: Any) -> list[Message]:
    """Read messages from plain values, for example from a file or a request.

    Raises:
        DataError: not a list of ``{"role": …, "content": …}`` with known roles and text.

    """
    if not isinstance(values, list) or not values:
        raise DataError('messages: must be a list of {"role": "system" | "user" | "assistant", "content": "text"}')
    return [_read(value, place) for place, value in enumerate(values)]


def _read(value: Any, place: int) -> Message:
    role = value.get("role") if isinstance(value, Mapping) else None
    content = value.get("content") if isinstance(value, Mapping) else None
    if role not in ("system", "user", "assistant"):
        raise DataError(f"messages[{place}]: role: must be system, user or assistant")
    if not isinstance(content, str) or len(content) > MAX_CHARACTERS:
        raise DataError(f"messages[{place}]: content: must be text of at most {MAX_CHARACTERS:,} characters")
    if _HALF.search(content):
        raise DataError(f"messages[{place}]: content: contains half a character (a lone surrogate); send valid text")
    return Message(role, content)
