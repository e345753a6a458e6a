"""The newest turns that fit, whole turns only."""

from collections.abc import Sequence

from llmjobs.chat.messages import Message, split
from llmjobs.chat.strategies.base import Plan, Room, Stateless, make_plan, newest, require_room


class Window(Stateless):
    """Drops from the oldest on; the system message stays."""

    name = "window"

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        """Send the longest run of newest exchanges within the budget."""
        parts = split(messages)
        require_room(room, parts)
        count = newest(room, parts)
        return make_plan(room, parts, parts.exchanges[len(parts.exchanges) - count :])
