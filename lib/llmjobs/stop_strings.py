"""Stop strings: where a text ends. Batches, chat, replies with thinking and those of servers are cut here."""

from collections.abc import Iterable, Sequence


def stop_place(text: str, stops: Iterable[str]) -> int | None:
    """The place of the first stop string in ``text``, None if it holds none. Empty stop strings are no stop strings."""
    return min((place for stop in stops if stop and (place := text.find(stop)) >= 0), default=None)


def before_stop(text: str, stops: Iterable[str]) -> str:
    """``text`` up to its first stop string."""
    return text[: stop_place(text, stops)]


def tail_tokens(stops: Iterable[str]) -> int:
    """How many last tokens contain a complete stop string: n characters are at most 4 n bytes, one per token."""
    return 4 + 4 * max(map(len, stops), default=0)


def may_become_stop(text: str, stops: Sequence[str]) -> int:
    """Length of the longest ending of ``text`` that a stop string begins with; more text could complete it."""
    return max((_overlap(text, stop) for stop in stops), default=0)


def _overlap(text: str, stop: str) -> int:
    longest = min(len(stop) - 1, len(text))
    return next((count for count in range(longest, 0, -1) if stop.startswith(text[-count:])), 0)
