"""Conversations in the words that the demo models know, from their own generator (the split they never saw)."""

from collections.abc import Sequence

from llmjobs.chat.conversations.script import Kind, Script, Turn
from llmjobs.demo.conversation import conversation

AFTER = 4
"""Turns beside those that a distance needs."""
KINDS: tuple[Kind, ...] = ("recall", "recall", "corrected", "instruction")


def scripts(count: int, seed: int, distances: Sequence[int]) -> list[Script]:
    """``count`` conversations; the first fact of each is asked for at one of ``distances``, in turn."""
    return [_script(place, seed, distances[place % len(distances)], len(distances)) for place in range(count)]


def _script(place: int, seed: int, distance: int, distances: int) -> Script:
    kind = KINDS[place // distances % len(KINDS)]
    fixed = None if kind == "instruction" else distance
    said = conversation(f"{seed}-{place}", "test", distance + AFTER, 2 + distance // 4, fixed, kind)  # type: ignore[arg-type]
    system = next((turn.text for turn in said if turn.role == "system"), None)
    turns = tuple(
        Turn(turn.text, turn.kind, turn.expected, turn.distance, _others(turn.choices, turn.expected))
        for turn in said
        if turn.role == "user"
    )
    return Script(f"recall-{place:03d}", turns, system)


def _others(choices: Sequence[str], expected: str | None) -> tuple[str, ...]:
    return tuple(choice for choice in choices if choice != expected)
