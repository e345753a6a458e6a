"""Context strategies: what is sent when a conversation does not fit (``docs/context-management.md``)."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llmjobs.chat.backend import MessageTooLongError
from llmjobs.chat.messages import Exchange, Message, Parts, split
from llmjobs.errors import ContextFullError
from llmjobs.extensions import STRATEGIES, load


class Room(Protocol):
    """What a strategy may use of the model that will answer."""

    @property
    def budget(self) -> int:
        """Maximum number of tokens of the messages to send, without the room for the answer."""

    def count(self, messages: Sequence[Message]) -> int:
        """Number of tokens of these messages as sent, including the template."""

    def complete(self, messages: Sequence[Message], max_new_tokens: int) -> tuple[str, int]:
        """Ask the model a side question with greedy decoding; return its answer and the tokens of prompt and answer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent for one turn."""

    messages: tuple[Message, ...]
    tokens: int
    """Tokens of the messages."""
    dropped_tokens: int
    """Tokens of the conversation that are not sent."""
    side_tokens: int = 0
    """Tokens that the strategy itself used to ask the model."""


class Strategy(Protocol):
    """Decides what is sent. Its state consists of builtins, so a conversation can be resumed."""

    name: str

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        """Choose from a conversation that ends with the user's message.

        The plan never exceeds the budget, begins with the system message, keeps the order and alternates the roles.

        Raises:
            MessageTooLongError: the system message and the newest message alone exceed the budget.
            ContextFullError: the strategy drops nothing and the conversation exceeds the budget.

        """

    def state(self) -> Mapping[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""


def make_strategy(name: str) -> Strategy:
    """Make a strategy by its name in :data:`llmjobs.extensions.STRATEGIES`."""
    made: Strategy = load(STRATEGIES[name])()
    return made


class Stateless:
    """A strategy without a state: it decides from the conversation alone."""

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None: ...


def make_plan(room: Room, parts: Parts, kept: Sequence[Exchange], note: str = "", side_tokens: int = 0) -> Plan:
    """Return the plan that sends these exchanges."""
    sent = parts.compose(kept, note)
    tokens = room.count(sent)
    originals = room.count(parts.compose(kept)) if note else tokens
    return Plan(sent, tokens, max(room.count(parts.compose(parts.exchanges)) - originals, 0), side_tokens)


def fits(room: Room, parts: Parts, exchanges: Sequence[Exchange], note: str = "", budget: int | None = None) -> bool:
    """Whether these exchanges can be sent within the budget."""
    return room.count(parts.compose(exchanges, note)) <= (room.budget if budget is None else budget)


def newest(room: Room, parts: Parts, note: str = "", budget: int | None = None) -> int:
    """Return how many of the newest exchanges fit, by bisection (more exchanges never take fewer tokens)."""
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
        MessageTooLongError: with both token counts and what to do.

    """
    tokens = room.count(parts.compose(()))
    if tokens > room.budget:
        raise MessageTooLongError(
            f"the message is too long: {tokens:,} tokens with the system prompt, and there is room for "
            f"{room.budget:,}; shorten it or raise --max-context"
        )


class Full(Stateless):
    """Sends the whole conversation until it exceeds the model's limit, then raises an error."""

    name = "full"

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        """Send all of it, or raise :class:`ContextFullError`."""
        parts = split(messages)
        require_room(room, parts)
        plan = make_plan(room, parts, parts.exchanges)
        if plan.tokens > room.budget:
            others = ", ".join(name for name in STRATEGIES if name not in ("none", self.name))
            raise ContextFullError(
                f"the conversation is full: {plan.tokens:,} tokens, and there is room for {room.budget:,}; "
                f"choose another strategy ({others}), undo, or reset"
            )
        return plan


class NoHistory(Stateless):
    """Sends the system message and the newest message, without any history."""

    name = "none"

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        parts = split(messages)
        require_room(room, parts)
        return make_plan(room, parts, ())


class Window(Stateless):
    """Sends the newest whole turns that fit, and the system message."""

    name = "window"

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        """Send as many of the newest exchanges as the budget allows."""
        parts = split(messages)
        require_room(room, parts)
        count = newest(room, parts)
        return make_plan(room, parts, parts.exchanges[len(parts.exchanges) - count :])


INSTRUCTION = "You summarise conversations. Keep every name, number, wish and decision. Write a few short sentences."
HEADING = "Summary of the conversation so far: "
EARLIER = "Earlier summary:"
TASK = "Write the summary of all of this."
SHARE = 4
"""The summary may take this fraction (one in …) of the budget."""


class Summary:
    """Sends a running summary and the turns after it. The model itself writes the summary.

    When the turns no longer fit, the oldest ones are folded into the summary, so many that half of the budget is free
    again. So the model is rarely asked, and in between, the beginning of the prompt stays the same.
    """

    name = "summary"

    def __init__(self) -> None:
        self.text = ""
        self.covered = 0

    def state(self) -> Mapping[str, Any]:
        """The summary and the number of exchanges that it covers."""
        return {"text": self.text, "covered": self.covered}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with a saved summary."""
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
        """Fold the oldest exchanges in if they no longer fit; return the note to send and its cost in tokens."""
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
        """The summary as it is sent, cut at its end if it would leave no room for the question."""
        text = self.text
        while text and not fits(room, parts, (), HEADING + text):
            text = text[: len(text) // 2]
        return HEADING + text if text else ""

    def _fold(self, exchanges: Sequence[Exchange], room: Room) -> int:
        """Summarize as many of the exchanges as fit into one call, at least one; return the cost in tokens."""
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
            return 0  # not even the request for a summary fits, so these turns are dropped, as in a window
        text, spent = room.complete(asked, length)
        self.text = " ".join(text.split()) or self.text
        return spent

    def _ask(self, written: Sequence[str]) -> list[Message]:
        earlier = [f"{EARLIER} {self.text}"] if self.text else []
        return [Message("system", INSTRUCTION), Message("user", "\n\n".join([*earlier, "\n".join(written), TASK]))]


def _as_text(exchange: Exchange) -> str:
    return f"User: {exchange.user.content}\nAssistant: {exchange.assistant.content}"


TRIED = 24
"""Number of best matches that are tried for room."""
_WORD = re.compile(r"\w+")


class Retrieve(Stateless):
    """Half of the room is for the newest turns, the rest for older ones that match (BM25), then for more new ones."""

    name = "retrieve"

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        """Send everything if it fits, otherwise what :func:`choose` finds."""
        parts = split(messages)
        require_room(room, parts)
        return make_plan(room, parts, choose(room, parts))


def choose(room: Room, parts: Parts, note: str = "") -> list[Exchange]:
    """Return the exchanges to send, in order: the newest, those that match the question, and what else fits."""
    everything = parts.exchanges
    if fits(room, parts, everything, note):
        return list(everything)
    older = len(everything) - newest(room, parts, note, room.budget // 2)
    chosen = set(range(older, len(everything)))

    def take(place: int) -> bool:
        """Add one exchange if there is room for it."""
        wanted = [everything[i] for i in sorted(chosen | {place})]
        if has_room := fits(room, parts, wanted, note):
            chosen.add(place)
        return has_room

    for place in rank(parts.question.content, everything[:older])[:TRIED]:
        take(place)
    for place in reversed(range(older)):
        if place not in chosen and not take(place):
            break
    return [everything[i] for i in sorted(chosen)]


def rank(question: str, exchanges: Sequence[Exchange]) -> list[int]:
    """Return the places of exchanges that share words with the question: best first, then newest first."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # bm25s sets its logger to DEBUG on import
    corpus = [words(f"{exchange.user.content} {exchange.assistant.content}") for exchange in exchanges]
    asked = words(question)
    if not asked or not any(corpus):
        return []
    index = bm25s.BM25()
    index.index(corpus, show_progress=False)
    known = [word for word in asked if word in index.vocab_dict]
    if not known:
        return []
    scores = index.get_scores(known)
    matching = [place for place in range(len(exchanges)) if scores[place] > 0]
    return sorted(matching, key=lambda place: (-round(float(scores[place]), 6), -place))


def words(text: str) -> list[str]:
    """Lower-case words without a final ``s``, so that "lives" matches "live"."""
    found = _WORD.findall(text.lower())
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in found]


class Hybrid(Summary):
    """Combines a running summary with older turns that match the question and the newest turns."""

    name = "hybrid"

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        """Send the summary, and choose from all exchanges, whether summarized or not."""
        parts = split(messages)
        require_room(room, parts)
        note, spent = self.update(parts, room)
        return make_plan(room, parts, choose(room, parts, note), note, spent)
