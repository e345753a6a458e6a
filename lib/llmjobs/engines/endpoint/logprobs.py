"""Read log-probabilities from servers' answers: two formats for generated tokens, and two for prompt tokens."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmjobs.calls.event_stream import NotCompletionError
from llmjobs.calls.request import Answer
from llmjobs.errors import LlmjobsError


class UnprovenError(LlmjobsError):
    """A server's values cannot be verified; the text says what it sent instead."""


class ScoredAnswer(Answer):
    """One response body with log-probabilities; its text is ignored."""

    def __init__(self, wanted: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
        """Create the request, without a body so far."""
        super().__init__(wanted, sent)
        self.body: Mapping[str, Any] = {}

    def take(self, event: Mapping[str, Any]) -> str:
        """Store the body."""
        if isinstance(usage := event.get("usage"), dict):
            self.usage = usage
        choices = event.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise NotCompletionError("a body without choices")
        self.body = event
        return ""

    def is_whole(self, *, is_done: bool) -> bool:
        """Whether a body has arrived."""
        return bool(self.body)

    @property
    def choice(self) -> Mapping[str, Any]:
        """The first choice."""
        found: Mapping[str, Any] = self.body["choices"][0]
        return found


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token's text, its log-probability in nats (None for a prompt's first token), and the most likely tokens."""

    text: str
    logprob: float | None
    is_top: bool = False
    """Whether no token is more likely."""
    top: tuple[tuple[str, float], ...] = ()


def _number(value: object) -> float | None:
    """A log-probability; None if ``value`` is not a finite number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]


def _pairs(found: object) -> tuple[tuple[str, float], ...]:
    """The most likely tokens, from a mapping of text to value or from a list of objects."""
    if isinstance(found, Mapping):
        return tuple((str(text), value) for text, one in found.items() if (value := _number(one)) is not None)
    rows = [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
    read = [(str(one.get("token")), _number(one.get("logprob"))) for one in rows]
    return tuple((text, value) for text, value in read if value is not None)


def listed_tokens(answer: ScoredAnswer) -> list[ScoredToken]:
    """Return a choice's tokens with log-probabilities, in OpenAI's format of completions or of chat completions.

    Raises:
        UnprovenError: the server sent none.

    """
    found = answer.choice.get("logprobs")
    if isinstance(found, Mapping) and isinstance(content := found.get("content"), list) and content:
        objects = [one for one in content if isinstance(one, Mapping)]
        return [_token(one.get("token"), one.get("logprob"), _pairs(one.get("top_logprobs"))) for one in objects]
    if isinstance(found, Mapping) and isinstance(texts := found.get("tokens"), list) and texts:
        values, tops = found.get("token_logprobs"), found.get("top_logprobs")
        if isinstance(values, list) and len(values) == len(texts):
            each = tops if isinstance(tops, list) and len(tops) == len(texts) else [None] * len(texts)
            return [_token(*row) for row in zip(texts, values, map(_pairs, each), strict=True)]
    raise UnprovenError("it sent no log-probabilities")


def _token(text: object, value: object, top: tuple[tuple[str, float], ...]) -> ScoredToken:
    number = _number(value)
    best = max((one for _, one in top), default=math.inf)
    return ScoredToken(str(text), number, number is not None and number >= best - 1e-6, top)


def vllm_prompt_tokens(answer: ScoredAnswer) -> list[ScoredToken]:
    """Return the tokens of vLLM's ``prompt_logprobs``, which has each token and a few more likely ones.

    Raises:
        UnprovenError: the server sent none.

    """
    found = answer.body.get("prompt_logprobs") or answer.choice.get("prompt_logprobs")
    if not isinstance(found, list) or len(found) < 2:
        raise UnprovenError("it sent no prompt_logprobs")
    return [_own_token(position) for position in found]


def _own_token(position: object) -> ScoredToken:
    """Return a position's token: the least likely one listed, as only the token itself and the most likely ones are."""
    if not isinstance(position, Mapping):
        return ScoredToken("", None)
    rows = [one for one in position.values() if isinstance(one, Mapping)]
    own = max(rows, key=lambda one: _number(one.get("rank")) or 0, default={})
    text = own.get("decoded_token")
    return ScoredToken(text if isinstance(text, str) else "", _number(own.get("logprob")), own.get("rank") == 1)


MARK = 16
"""Number of a prompt's characters that must precede the ending in the tokens that a server lists for the prompt."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a prompt as scored tokens: how many tokens there are before it, and where its ending begins."""

    before: int
    tokens: tuple[ScoredToken, ...]
    starts: int
    """Index, in the whole prompt, of the first token that has a character of the ending."""

    def score(self, starts: int) -> tuple[float, bool]:
        """Sum of the log-probabilities from token ``starts`` on, and whether each token was the most likely one."""
        own = self.tokens[starts - self.before :]
        values = [math.nan if one.logprob is None else one.logprob for one in own]
        return sum(values), all(one.is_top for one in own)

    def to_builtin(self) -> dict[str, Any]:
        """Plain values for the journal."""
        rows = [[one.text, one.logprob, one.is_top] for one in self.tokens]
        return {"before": self.before, "tokens": rows, "starts": self.starts}

    @classmethod
    def from_builtin(cls, found: Mapping[str, Any]) -> "Tail":
        """Read what :meth:`to_builtin` returned."""
        tokens = tuple(ScoredToken(str(text), value, bool(top)) for text, value, top in found["tokens"])
        return cls(int(found["before"]), tokens, int(found["starts"]))


def tail_of(tokens: Sequence[ScoredToken], context: str, ending: str, generated: Iterator[int] | Sequence[int]) -> Tail:
    """Find ``ending`` at the end of the listed tokens, with the end of ``context`` before it.

    ``generated``: how many tokens at the end may be generated ones, which are left out.

    Raises:
        UnprovenError: the tokens are not those of the prompt.

    """
    wanted = context[-MARK:] + ending
    for count in dict.fromkeys(generated):
        own = list(tokens[: len(tokens) - count])
        at, text = len(own), ""
        while at and len(text) < len(wanted):
            at -= 1
            text = own[at].text + text
        if text.endswith(wanted) or (not at and ending and wanted.endswith(text) and len(text) > len(ending)):
            return _tail(own, at, ending)
    said = "".join(one.text for one in tokens)
    raise UnprovenError(
        f"its log-probabilities are not those of the prompt: it listed {len(tokens)} tokens ({said[:40]!r}) where the "
        f"prompt ends in {wanted[-24:]!r}"
    )


def _tail(own: list[ScoredToken], first: int, ending: str) -> Tail:
    starts, length = len(own), 0
    while starts and length < len(ending):
        starts -= 1
        length += len(own[starts].text)
    kept = max(min(starts - 2, len(own) - 1), first, 0)
    return Tail(kept, tuple(own[kept:]), starts)


def option_values(top: Sequence[tuple[str, float]], endings: Sequence[str]) -> dict[str, float] | None:
    """Return the log-probability of each ending among the most likely next tokens; None if any is missing.

    If a server omits the blank before a word, or writes it differently, all endings are looked up in that form.
    """
    found = dict(reversed(list(top)))
    for form in ("{}", "\u2581{}", "\u0120{}"):
        bare = [ending.strip() if form != "{}" else ending for ending in endings]
        if all(form.format(one) in found for one in bare):
            return {ending: found[form.format(one)] for ending, one in zip(endings, bare, strict=True)}
    bare = [ending.strip() for ending in endings]
    is_blank_left_out = not any(ending in found for ending in endings if ending != ending.strip())
    if is_blank_left_out and all(one in found for one in bare):
        return {ending: found[one] for ending, one in zip(endings, bare, strict=True)}
    return None
