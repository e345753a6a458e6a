"""What a strategy is: messages in, messages to send out, with a token count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llmjobs.chat.errors import MessageTooLongError
from llmjobs.chat.messages import Exchange, Message, Parts


class Room(Protocol):
    """What a strategy may use of the model that will answer."""

    @property
    def budget(self) -> int:
        """Tokens that the messages to send may have; the answer's room is taken off already."""

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of these messages as they are sent, template and all."""

    def complete(self, messages: Sequence[Message], max_new_tokens: int) -> tuple[str, int]:
        """Ask the model on the side, greedily: its answer, and the tokens that prompt and answer took."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent this time."""

    messages: tuple[Message, ...]
    tokens: int
    """Tokens of the messages."""
    dropped_tokens: int
    """Tokens of the conversation that are not sent."""
    side_tokens: int = 0
    """Tokens that the strategy itself used up by asking the model."""


class Strategy(Protocol):
    """Decides what is sent. Its state is builtins, so that a conversation can be resumed."""

    name: str

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        """Choose from a conversation that ends with the user's message.

        The plan is never over the budget, begins with the system message, keeps the order and alternates the roles.

        Raises:
            MessageTooLongError: system message and newest message alone are over the budget.
            ContextFullError: the strategy drops nothing and the conversation is over the budget.

        """

    def state(self) -> Mapping[str, Any]:
        """What a resume needs."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""


class Stateless:
    """A strategy that decides from the conversation alone."""

    def state(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing."""


def make_plan(room: Room, parts: Parts, kept: Sequence[Exchange], note: str = "", side_tokens: int = 0) -> Plan:
    """The plan that sends these exchanges."""
    sent = parts.compose(kept, note)
    tokens = room.count(sent)
    originals = room.count(parts.compose(kept)) if note else tokens
    return Plan(sent, tokens, max(room.count(parts.compose(parts.exchanges)) - originals, 0), side_tokens)


def fits(room: Room, parts: Parts, exchanges: Sequence[Exchange], note: str = "", budget: int | None = None) -> bool:
    """Whether these exchanges can be sent within the budget."""
    return room.count(parts.compose(exchanges, note)) <= (room.budget if budget is None else budget)


def newest(room: Room, parts: Parts, note: str = "", budget: int | None = None) -> int:
    """How many of the newest exchanges fit (by halving: more exchanges never take fewer tokens)."""
    low, high = 0, len(parts.exchanges)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(room, parts, parts.exchanges[-middle:], note, budget):
            low = middle
        else:
            high = middle - 1
    return low


def require_room(room: Room, parts: Parts) -> None:
    """Refuse a message that does not fit even alone.

    Raises:
        MessageTooLongError: with both figures and what to do.

    """
    tokens = room.count(parts.compose(()))
    if tokens > room.budget:
        raise MessageTooLongError(
            f"the message is too long: {tokens:,} tokens with the system prompt, and there is room for "
            f"{room.budget:,}; shorten it or raise --max-context"
        )
