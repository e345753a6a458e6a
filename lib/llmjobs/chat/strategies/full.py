"""Everything, until the model's limit: then it says so."""

from collections.abc import Sequence

from llmjobs.chat.errors import ContextFullError
from llmjobs.chat.messages import Message, split
from llmjobs.chat.strategies.base import Plan, Room, Stateless, make_plan, require_room


class Full(Stateless):
    """Sends the whole conversation."""

    name = "full"

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        """Send all of it, or raise :class:`ContextFullError`."""
        parts = split(messages)
        require_room(room, parts)
        plan = make_plan(room, parts, parts.exchanges)
        if plan.tokens > room.budget:
            raise ContextFullError(
                f"the conversation is full: {plan.tokens:,} tokens, and there is room for {room.budget:,}; "
                "choose another strategy (window, summary, retrieve, hybrid), undo, or reset"
            )
        return plan
