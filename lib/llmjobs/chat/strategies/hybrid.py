"""A running summary, older turns that bear on the question, and the newest turns."""

from collections.abc import Sequence

from llmjobs.chat.messages import Message, split
from llmjobs.chat.strategies.base import Plan, Room, make_plan, require_room
from llmjobs.chat.strategies.retrieve import choose
from llmjobs.chat.strategies.summary import Summary


class Hybrid(Summary):
    """The summary says what it was about, the retrieved turns say it in their own words."""

    name = "hybrid"

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        """Pin the summary, then choose from all exchanges, summarised or not."""
        parts = split(messages)
        require_room(room, parts)
        note, spent = self.update(parts, room)
        return make_plan(room, parts, choose(room, parts, note), note, spent)
