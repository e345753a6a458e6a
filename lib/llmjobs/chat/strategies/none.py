"""History off: the system message and the newest message."""

from collections.abc import Sequence

from llmjobs.chat.messages import Message, split
from llmjobs.chat.strategies.base import Plan, Room, Stateless, make_plan, require_room


class NoHistory(Stateless):
    """Sends no earlier turn at all."""

    name = "none"

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        """Drop every exchange."""
        parts = split(messages)
        require_room(room, parts)
        return make_plan(room, parts, ())
