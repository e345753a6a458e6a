"""What falls out of the context is summarised by the model itself; the running summary is pinned."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmjobs.chat.messages import Exchange, Message, Parts, split
from llmjobs.chat.strategies.base import Plan, Room, fits, make_plan, newest, require_room

INSTRUCTION = "You summarise conversations. Keep every name, number, wish and decision. Write a few short sentences."
HEADING = "Summary of the conversation so far: "
EARLIER = "Earlier summary:"
TASK = "Write the summary of all of this."
SHARE = 4
"""The summary may take one part in so many of the budget."""


class Summary:
    """Sends the running summary and the turns after it.

    When they no longer fit, so many of the oldest turns are folded into the summary that half of the budget is free
    again: the model is asked rarely, and between two times the beginning of what is sent stays the same.
    """

    name = "summary"

    def __init__(self) -> None:
        """Begin without a summary."""
        self.text = ""
        self.covered = 0

    def state(self) -> Mapping[str, Any]:
        """The summary and how many exchanges stand behind it."""
        return {"text": self.text, "covered": self.covered}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a saved summary."""
        self.text, self.covered = str(state.get("text", "")), int(state.get("covered", 0))

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        """Send the summary and everything after it."""
        parts = split(messages)
        require_room(room, parts)
        note, spent = self.update(parts, room)
        rest = Parts(parts.system, parts.exchanges[self.covered :], parts.question)
        count = newest(room, rest, note)
        kept = rest.exchanges[len(rest.exchanges) - count :]
        return make_plan(room, parts, kept, note, spent)

    def update(self, parts: Parts, room: Room) -> tuple[str, int]:
        """Fold the oldest exchanges in where they no longer fit; the note to pin and the tokens that it cost."""
        if self.covered > len(parts.exchanges):  # turns were undone
            self.text, self.covered = "", 0
        spent = 0
        rest = Parts(parts.system, parts.exchanges[self.covered :], parts.question)
        if not fits(room, rest, rest.exchanges, self._note(room, rest)):
            keep = newest(room, rest, budget=room.budget // 2)
            until = len(parts.exchanges) - keep
            while self.covered < until:
                spent += self._fold(parts.exchanges[self.covered : until], room)
        return self._note(room, parts), spent

    def _note(self, room: Room, parts: Parts) -> str:
        """The summary as it is pinned, cut from its end where even that leaves no room for the question."""
        text = self.text
        while text and not fits(room, parts, (), HEADING + text):
            text = text[: len(text) // 2]
        return HEADING + text if text else ""

    def _fold(self, exchanges: Sequence[Exchange], room: Room) -> int:
        """Summarise as many of the exchanges as fit into one call, at least one; the tokens that it cost."""
        length = max(room.budget // SHARE, 8)
        written = [_as_text(exchange) for exchange in exchanges]
        count = len(written)
        while count > 1 and room.count(self._ask(written[:count])) > room.budget:
            count = (count + 1) // 2
        first = written[0]
        while count == 1 and first and room.count(self._ask([first])) > room.budget:
            first = first[: len(first) // 2]
        asked = self._ask(written[:count] if count > 1 else [first])
        self.covered += count
        if room.count(asked) > room.budget:
            return 0  # not even the question for a summary fits: these turns are dropped, as in a window
        text, spent = room.complete(asked, length)
        self.text = " ".join(text.split()) or self.text
        return spent

    def _ask(self, written: Sequence[str]) -> list[Message]:
        earlier = [f"{EARLIER} {self.text}"] if self.text else []
        return [Message("system", INSTRUCTION), Message("user", "\n\n".join([*earlier, "\n".join(written), TASK]))]


def _as_text(exchange: Exchange) -> str:
    return f"User: {exchange.user.content}\nAssistant: {exchange.assistant.content}"
