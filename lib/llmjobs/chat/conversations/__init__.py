"""Scripted conversations, checked by program: made by rule with seeds, and some written by hand.

``recall``    in the words of the demo models: facts, corrections, an instruction, small talk
``everyday``  for any model: facts, corrections, pronouns, arithmetic on earlier numbers, an instruction that holds
``written``   a few by hand
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from llmjobs.chat.conversations import everyday, recall, written
from llmjobs.chat.conversations.script import Script

__all__ = ["SETS", "Script", "data_hash", "make_scripts"]

SETS: dict[str, Callable[[int, int, Sequence[int]], list[Script]]] = {
    "recall": recall.scripts,
    "everyday": everyday.scripts,
    "written": written.scripts,
}


def make_scripts(name: str, count: int, seed: int, distances: Sequence[int]) -> list[Script]:
    """The conversations of a set: ``count`` of them (as many as there are, of ``written``)."""
    return SETS[name](count, seed, distances)


def data_hash(scripts: Sequence[Script]) -> str:
    """``sha256:…`` over everything that is said and expected."""
    text = json.dumps([asdict(script) for script in scripts], ensure_ascii=False, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
