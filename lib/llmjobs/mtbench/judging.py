"""Judging: the judge's prompts, one judgment, and how a rating or verdict is read from the reply."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from llmjobs.benchmarks.rows import read_rows
from llmjobs.chat.backend import AnswerError, CallError, ContextFullError, MessageTooLongError, UnavailableError
from llmjobs.errors import DataError
from llmjobs.mtbench.questions import Question
from llmjobs.work.journal import encode

# Judge prompts in FastChat's form: our own, or a user's file to reproduce published settings.

OWN_FILE = Path(__file__).parent / "data" / "judge_prompts.jsonl"
BASES = {("single", False): "single-v1", ("single", True): "single-math-v1"} | {
    ("pairwise", False): "pair-v2",
    ("pairwise", True): "pair-math-v1",
}
_FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")
_FIELDS = {
    "single": {"question", "answer", "question_1", "question_2", "answer_1", "answer_2"},
    "pairwise": {"question", "answer_a", "answer_b", "question_1", "question_2"}
    | {f"answer_{side}_{turn}" for side in "ab" for turn in (1, 2)},
}
_REFERENCES = {"ref_answer_1", "ref_answer_2"}


@dataclass(frozen=True)
class JudgePrompt:
    """One prompt of the judge."""

    name: str
    type: str
    system: str
    template: str

    def fill(self, values: Mapping[str, str]) -> str:
        """The template with ``{name}`` replaced; braces in the values are kept."""
        return _FIELD.sub(lambda m: values[m[1]] if m[1] else m[0][0], self.template)


@dataclass(frozen=True)
class PromptSet:
    source: str
    prompts: Mapping[str, JudgePrompt]

    @property
    def hash(self) -> str:
        """SHA-256 over their names and texts."""
        lines = (encode({"n": p.name, "s": p.system, "t": p.template}) for p in self.prompts.values())
        return hashlib.sha256(b"".join(lines)).hexdigest()[:16]

    def choose(self, mode: str, *, with_reference: bool, turn: int) -> JudgePrompt:
        """The prompt for a mode, with or without reference, turn 1 or 2.

        Raises:
            DataError: the file has no prompt of that name.

        """
        name = BASES[mode, with_reference] + ("-multi-turn" if turn == 2 else "")
        if name not in self.prompts:
            raise DataError(f"{self.source}: has no prompt {name!r}; it has {', '.join(self.prompts)}")
        return self.prompts[name]


def read_prompts(source: str) -> PromptSet:
    """The prompts of ``own`` or of a file.

    Raises:
        DataError: no such file, a line is not a prompt, or a field has no value.

    """
    path = OWN_FILE if source == "own" else Path(source)
    if not path.is_file():
        raise DataError(f"{source}: file not found; name a file of judge prompts, or 'own'")
    found = {}
    for number, row in read_rows(path):
        prompt = _prompt(f"{path}:{number}", row)
        found[prompt.name] = prompt
    if not found:
        raise DataError(f"{path}: contains no judge prompt")
    return PromptSet(source, found)


def _prompt(where: str, row: Mapping[str, Any]) -> JudgePrompt:
    texts = {key: row.get(key) for key in ("name", "type", "system_prompt", "prompt_template")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise DataError(f"{where}: {key}: must be text")
    prompt = JudgePrompt(*(str(text) for text in texts.values()))
    if prompt.type not in _FIELDS:
        raise DataError(f"{where}: type: '{prompt.type}' is not one of {', '.join(_FIELDS)}")
    allowed = _FIELDS[prompt.type] | _REFERENCES
    for name in _FIELD.findall(prompt.template):
        if name and name not in allowed:
            raise DataError(f"{where}: prompt_template: {{{name}}} is not one of {', '.join(sorted(allowed))}")
    return prompt


# A rating or a verdict is read by fixed rules, or counts as unreadable.

LOWEST, HIGHEST = 1.0, 10.0
_RATINGS = (re.compile(r"\[\[(\d+(?:\.\d*)?)\]\]"), re.compile(r"\[(\d+(?:\.\d*)?)\]"))
r"""FastChat's ``\d+\.?\d*``, but with only one way to match a row of digits (FastChat's takes quadratic time)."""
_VERDICTS = {"[[A]]": "A", "[[B]]": "B", "[[C]]": "tie"}
REMINDER = {
    "single": "Your rating could not be read. Write only the rating from 1 to 10 in double brackets, like this: [[4]]",
    "pairwise": "Your verdict could not be read. Write only [[A]], [[B]] or [[C]].",
}
"""The message when a judge is asked again, once."""


def read_rating(text: str) -> float | None:
    """The rating in a judgment; None if it cannot be read."""
    for pattern in _RATINGS:
        if match := pattern.search(text):
            rating = float(match[1])
            return rating if LOWEST <= rating <= HIGHEST else None
    return None


def is_weakly_rated(text: str) -> bool:
    """Whether a rating is only in single brackets, as ``[8]`` or in code like ``a[1]``: it may not be a rating."""
    return not _RATINGS[0].search(text) and read_rating(text) is not None


def read_verdict(text: str) -> str | None:
    """``A``, ``B`` or ``tie``; None if there is no verdict, or there are different ones.

    FastChat takes the first kind that occurs anywhere, A before B before C. We do not read a judgment that names two.
    """
    found = {verdict for mark, verdict in _VERDICTS.items() if mark in text}
    return found.pop() if len(found) == 1 else None


# One judgment: fill the prompt, ask the judge, read the rating, and ask once more if it cannot be read.

Record = dict[str, Any]


@dataclass(frozen=True)
class JudgeAnswer:
    """A judge's reply, and its tokens."""

    text: str
    prompt_tokens: int
    new_tokens: int
    counted: str
    thinking: str | None = None
    """The judge's thinking, in which no rating is read."""


class JudgeConversation(Protocol):
    """A conversation with a judge; :meth:`ask` keeps what was said before."""

    def ask(self, text: str) -> JudgeAnswer:
        """Ask, and return the whole answer."""


OpenJudge = Callable[[str, str], JudgeConversation]
"""System prompt and a label of the call → a conversation."""
Turns = Sequence[str]


def judge_single(
    prompts: PromptSet, question: Question, answer: Turns, turn: int, *, with_reference: bool, open_judge: OpenJudge
) -> Record:
    """Rate turn ``turn`` (from 1) of an answer; the record's ``status`` is ``ok``, ``unread`` or ``error``."""
    prompt = prompts.choose("single", with_reference=with_reference, turn=turn)
    values = _questions(question) | {"answer": answer[0]} | {f"answer_{i + 1}": text for i, text in enumerate(answer)}
    found = _ask(prompt, values, open_judge, f"{question.id}.{turn}", read_rating)
    rating = found.pop("read")
    weak = {"single_brackets": True} if rating is not None and is_weakly_rated(found["judgment"] or "") else {}
    return {"prompt": prompt.name, "rating": rating, **weak, **found}


def judge_pair(
    prompts: PromptSet,
    question: Question,
    first: Turns,
    second: Turns,
    turn: int,
    *,
    with_reference: bool,
    open_judge: OpenJudge,
) -> Record:
    """Compare two answers in both orders; verdicts that disagree are a tie.

    ``winner`` is ``first``, ``second``, ``tie``, or None if one of the two orders has no verdict.
    """
    prompt = prompts.choose("pairwise", with_reference=with_reference, turn=turn)
    orders = []
    for place, (a, b) in enumerate(((first, second), (second, first)), start=1):
        values = _questions(question) | {"answer_a": a[0], "answer_b": b[0]}
        values |= {
            f"answer_{side}_{i + 1}": text for side, turns in (("a", a), ("b", b)) for i, text in enumerate(turns)
        }
        found = _ask(prompt, values, open_judge, f"{question.id}.{turn}.order{place}", read_verdict)
        orders.append({"verdict": found.pop("read"), **found})
    winners = [_winner(orders[0]["verdict"], "first", "second"), _winner(orders[1]["verdict"], "second", "first")]
    return {"prompt": prompt.name, **combine(winners), "orders": orders, "status": _worst(orders)}


def combine(winners: Sequence[str | None]) -> Record:
    """The winner over both orders, and whether the order mattered."""
    if None in winners:
        return {"winner": None, "flipped": None}
    same = winners[0] == winners[1]
    return {"winner": winners[0] if same else "tie", "flipped": not same}


def _winner(verdict: str | None, a: str, b: str) -> str | None:
    return {"A": a, "B": b, "tie": "tie"}.get(verdict or "")


def _worst(orders: Sequence[Record]) -> str:
    statuses = {order["status"] for order in orders}
    return next(status for status in ("error", "unread", "ok") if status in statuses)


def _questions(question: Question) -> dict[str, str]:
    values = {"question": question.turns[0], "ref_answer_1": "", "ref_answer_2": ""}
    values |= {f"question_{i + 1}": text for i, text in enumerate(question.turns)}
    return values | {f"ref_answer_{i + 1}": text for i, text in enumerate(question.reference or ())}


def _ask(
    prompt: JudgePrompt, values: dict[str, str], open_judge: OpenJudge, label: str, read: Callable[[str], Any]
) -> Record:
    """Ask, and ask once more if the reply cannot be read or a local judge gave an empty one."""
    judge = open_judge(prompt.system, label)
    found = _Found()
    for asked in (1, 2):
        found.asked = asked
        try:
            answer = judge.ask(prompt.fill(values) if not found.said else REMINDER[prompt.type])
        except UnavailableError:
            raise
        except (ContextFullError, MessageTooLongError) as failure:
            if not found.said:
                found.error, found.is_final = str(failure), True
            break
        except CallError as failure:
            found.error, found.is_final = str(failure), False
            break
        except AnswerError as failure:
            found.error, found.is_final = None if found.said else str(failure), True
            continue
        found.take(answer)
        if (value := read(answer.text)) is not None:
            return found.record("ok", value)
    return found.record("error" if found.error else "unread")


@dataclass
class _Found:
    """What a judge has replied to one prompt so far."""

    asked: int = 0
    said: list[str] = field(default_factory=list)
    thought: list[str | None] = field(default_factory=list)
    tokens: tuple[int, int] = (0, 0)
    counted: str = "tokenizer"
    error: str | None = None
    is_final: bool = False

    def take(self, answer: JudgeAnswer) -> None:
        self.said.append(answer.text)
        self.thought.append(answer.thinking)
        self.tokens = (self.tokens[0] + answer.prompt_tokens, self.tokens[1] + answer.new_tokens)
        self.error, self.counted = None, answer.counted

    def record(self, status: str, value: Any = None) -> Record:
        last = self.said[-1] if self.said else None
        head = {"read": value, "judgment": last, "asked": self.asked, "earlier": list(self.said[:-1])}
        counts = {"prompt_tokens": self.tokens[0], "new_tokens": self.tokens[1], "tokens_counted": self.counted}
        error = {"error": self.error, **({"final": True} if self.is_final else {})} if self.error else {}
        thinking = {"thinking": list(self.thought)} if any(text is not None for text in self.thought) else {}
        return {**head, **counts, "status": status, **thinking, **error}
