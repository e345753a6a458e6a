"""Count questions that were not asked as the manifest says, from the records alone.

A prompt that does not fit into the model's context loses shots. If it does not fit even without shots, it loses its
beginning. A reply may have less room than its benchmark allows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmjobs.terminal_text import plural


@dataclass(frozen=True)
class ChangedPrompts:
    """Counts over some records; ``fewest_shots`` and ``most_shots`` are over those with fewer shots than asked for."""

    num_fewshot: int = 0
    fewer_shots: int = 0
    fewest_shots: int = 0
    most_shots: int = 0
    truncated: int = 0
    shortened: int = 0
    joined: int = 0
    thinking_cut: int = 0

    def __str__(self) -> str:
        """One sentence; empty if everything was asked as the manifest says."""
        parts = []
        if self.fewer_shots:
            fitted = f"{self.fewest_shots} to {self.most_shots}" if self.fewest_shots < self.most_shots else ""
            parts.append(
                f"{self.num_fewshot} shots, only {fitted or self.fewest_shots} fitted on {_questions(self.fewer_shots)}"
            )
        if self.truncated:
            parts.append(f"the beginning of the prompt was cut off on {_questions(self.truncated)}")
        if self.shortened:
            parts.append(f"less room than usual for the reply on {_questions(self.shortened)}")
        if self.joined:
            parts.append(
                f"the tokenizer joins prompt and answer on {_questions(self.joined)}, scored from the last common token"
            )
        if self.thinking_cut:
            parts.append(thinking_cut_text(self.thinking_cut, "question"))
        return "; ".join(parts)

    def __add__(self, other: "ChangedPrompts") -> "ChangedPrompts":
        """Count both together."""
        few = [one for one in (self, other) if one.fewer_shots]
        return ChangedPrompts(
            max(self.num_fewshot, other.num_fewshot),
            self.fewer_shots + other.fewer_shots,
            min((one.fewest_shots for one in few), default=0),
            max((one.most_shots for one in few), default=0),
            self.truncated + other.truncated,
            self.shortened + other.shortened,
            self.joined + other.joined,
            self.thinking_cut + other.thinking_cut,
        )

    @property
    def differs(self) -> bool:
        """Whether the model was asked something different from the manifest (joined tokens are the same text)."""
        return bool(self.fewer_shots or self.truncated or self.shortened)

    def to_record(self) -> dict[str, Any]:
        """The counts for a summary; empty if nothing changed."""
        counts = {key: value for key, value in vars(self).items() if value and key not in _SHOTS}
        shots = {key: getattr(self, key) for key in _SHOTS} if self.fewer_shots else {}
        return {"changed_prompts": shots | counts} if shots or counts else {}

    @classmethod
    def from_record(cls, row: Mapping[str, Any]) -> "ChangedPrompts":
        """Read what :meth:`to_record` wrote."""
        found = row.get("changed_prompts") or {}
        return cls(**{key: int(found[key]) for key in vars(cls()) if key in found})


_SHOTS = ("num_fewshot", "fewest_shots", "most_shots")


MARKS = ("num_fewshot", "truncated", "shortened", "joined", "thinking_cut")
"""Keys of a record with the way in which it was asked."""


def count_changed(records: Iterable[Mapping[str, Any]], num_fewshot: int) -> ChangedPrompts:
    """Count the marks of records that were asked with ``num_fewshot`` shots."""
    everything = list(records)
    used = [shots for record in everything if isinstance(shots := record.get("num_fewshot"), int)]
    fewer = [shots for shots in used if shots < num_fewshot]
    marks = {key: sum(record.get(key) is True for record in everything) for key in MARKS[1:]}
    return ChangedPrompts(num_fewshot, len(fewer), min(fewer, default=0), max(fewer, default=0), **marks)


def _questions(count: int) -> str:
    return plural(count, "question")


def thinking_cut(count: int) -> dict[str, int]:
    """The key of a summary with the number of answers whose thinking was cut off; empty if there is none."""
    return {"thinking_cut": count} if count else {}


def empty_answers(texts: Iterable[str | None]) -> dict[str, int]:
    """The key of a summary with the number of answers that the model ended without text; missing if there is none.

    They count as answers: wrong ones, or ones that a judge rates. None stands for a call that failed.
    """
    count = sum(text is not None and not text.strip() for text in texts)
    return {"empty": count} if count else {}


def empty_text(count: int, what: str = "answer") -> str:
    """Say how many answers (or ``what``) the model ended without text."""
    return f"{plural(count, what)} without any text"


def thinking_cut_text(count: int, what: str = "answer") -> str:
    """Say how many answers (or ``what``) were written after their thinking had been cut off."""
    return f"the thinking reached its limit and was cut off on {plural(count, what)}"
