"""Older turns come back when they bear on the question (BM25), before the newest turns, all in their order."""

import logging
import re
from collections.abc import Sequence

from llmjobs.chat.messages import Exchange, Message, Parts, split
from llmjobs.chat.strategies.base import Plan, Room, Stateless, fits, make_plan, newest, require_room

TRIED = 24
"""Best matches that are tried for room."""
_WORD = re.compile(r"\w+")


class Retrieve(Stateless):
    """Half of the room for the newest turns, the rest for older ones that match, then for more of the newest."""

    name = "retrieve"

    def plan(self, messages: Sequence[Message], room: Room) -> Plan:
        """Send everything where it fits, else what :func:`choose` finds."""
        parts = split(messages)
        require_room(room, parts)
        return make_plan(room, parts, choose(room, parts))


def choose(room: Room, parts: Parts, note: str = "") -> list[Exchange]:
    """The exchanges to send, in order: the newest, those that match the question, and what else fits."""
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
    """Places of the exchanges that share words with the question, best first, of equals the newest first."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG when it is imported
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
    """Lower-case words; an ending ``s`` goes, so that "lives" meets "live"."""
    found = _WORD.findall(text.lower())
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in found]
