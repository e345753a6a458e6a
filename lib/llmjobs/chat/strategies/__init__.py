"""Context strategies: what of a conversation is sent when not all of it fits (see ``docs/context-management.md``)."""

from collections.abc import Callable

from llmjobs.chat.strategies.base import Plan, Room, Strategy
from llmjobs.chat.strategies.full import Full
from llmjobs.chat.strategies.hybrid import Hybrid
from llmjobs.chat.strategies.none import NoHistory
from llmjobs.chat.strategies.retrieve import Retrieve
from llmjobs.chat.strategies.summary import Summary
from llmjobs.chat.strategies.window import Window

__all__ = ["STRATEGIES", "Plan", "Room", "Strategy"]

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "none": NoHistory,
    "full": Full,
    "window": Window,
    "summary": Summary,
    "retrieve": Retrieve,
    "hybrid": Hybrid,
}
"""Name → class, in the order in which reports list them."""
