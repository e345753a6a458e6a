"""One judgment: the judge's prompt is filled in, the judge is asked, and a rating or verdict is read from its reply.

Prompts are in FastChat's format: the project's own, or a user's file to reproduce published settings. The demo's
rule-based judge compares the words of an answer with those of the reference. It is not a model, and gives
no rating if there is no reference.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from llmjobs.benchmarks.rows import read_rows
from llmjobs.chat.backend import MessageTooLongError
from llmjobs.errors import AnswerError, CallError, ContextFullError, DataError, UnavailableError
from llmjobs.mtbench.fastchat import combine
from llmjobs.mtbench.questions import Question
from llmjobs.work.journal import Record, encode

TIMES_ASKED = 2
"""How often a judge is asked for one judgment: once, and again if nothing can be read."""


REMINDER = {
    "single": "Your rating could not be read. Write only the rating from 1 to 10 in double brackets, like this: [[4]]",
    "pairwise": "Your verdict could not be read. Write only [[A]], [[B]] or [[C]].",
}
"""What a judge is told when it is asked again."""


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
    """One prompt for a judge."""

    name: str
    type: str
    system: str
    template: str

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the template with each ``{name}`` replaced; braces in the values are left alone."""
        return _FIELD.sub(lambda m: values[m[1]] if m[1] else m[0][0], self.template)


@dataclass(frozen=True)
class PromptSet:
    """All prompts of one file, by name."""

    source: str
    prompts: Mapping[str, JudgePrompt]

    @property
    def hash(self) -> str:
        """Digest of the names and texts of the prompts, for fingerprints."""
        lines = (encode({"n": p.name, "s": p.system, "t": p.template}) for p in self.prompts.values())
        return hashlib.sha256(b"".join(lines)).hexdigest()[:16]

    def choose(self, mode: str, *, with_reference: bool, turn: int) -> JudgePrompt:
        """Return the prompt for a mode (``single`` or ``pairwise``) and a turn, with or without reference answer.

        Raises:
            DataError: the file has no such prompt.

        """
        name = BASES[mode, with_reference] + ("-multi-turn" if turn == 2 else "")
        if name not in self.prompts:
            raise DataError(f"{self.source}: has no prompt {name!r}; it has {', '.join(self.prompts)}")
        return self.prompts[name]


def read_prompts(source: str) -> PromptSet:
    """Read the bundled prompts (``own``) or those of a file in FastChat's format.

    Raises:
        DataError: there is no such file, a line is not a prompt, or a template has an unknown field.

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


# How a rating or a verdict is read from a judgment: by FastChat's rules, or not at all.

LOWEST, HIGHEST = 1.0, 10.0
_RATINGS = (re.compile(r"\[\[(\d+(?:\.\d*)?)\]\]"), re.compile(r"\[(\d+(?:\.\d*)?)\]"))
"""FastChat's ``\\d+\\.?\\d*``, but a run of digits matches in only one way (FastChat's takes quadratic time)."""
_VERDICTS = {"[[A]]": "A", "[[B]]": "B", "[[C]]": "tie"}


def read_rating(text: str) -> float | None:
    """Return the rating in a judgment; None if there is none from 1 to 10."""
    for pattern in _RATINGS:
        if match := pattern.search(text):
            rating = float(match[1])
            return rating if LOWEST <= rating <= HIGHEST else None
    return None


def is_weakly_rated(text: str) -> bool:
    """Whether the rating is in single brackets only, as in ``[8]``; it may be code such as ``a[1]``."""
    return not _RATINGS[0].search(text) and read_rating(text) is not None


def read_verdict(text: str) -> str | None:
    """Return the verdict in a judgment: ``A``, ``B`` or ``tie``; None if there is none, or more than one.

    If a judgment contains several, FastChat takes A before B before C; here it counts as unread.
    """
    found = {verdict for mark, verdict in _VERDICTS.items() if mark in text}
    return found.pop() if len(found) == 1 else None


# One judgment: fill in the prompt, ask the judge, read the rating; ask once more if it cannot be read.


@dataclass(frozen=True)
class JudgeAnswer:
    """A judge's reply and its token counts."""

    text: str
    prompt_tokens: int
    new_tokens: int
    counted: str
    thinking: str | None = None
    """The judge's thinking before the reply; no rating is read from it."""
    thinking_cut: bool = False
    """The thinking used up its tokens and was ended."""


class JudgeConversation(Protocol):
    """A conversation with a judge, which keeps earlier messages."""

    def ask(self, text: str) -> JudgeAnswer:
        """Send a message and return the complete reply."""


OpenJudge = Callable[[str, str], JudgeConversation]
"""(system prompt, label of the call) → a conversation."""
Turns = Sequence[str]


def judge_single(
    prompts: PromptSet, question: Question, answer: Turns, turn: int, *, with_reference: bool, open_judge: OpenJudge
) -> Record:
    """Rate turn ``turn`` (1 or 2) of an answer; the record's ``status`` is ``ok``, ``unread`` or ``error``."""
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
    """Compare two answers in both orders; if the verdicts disagree, the result is a tie.

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
    """Ask, and ask once more if nothing can be read or the judge returned nothing."""
    judge = open_judge(prompt.system, label)
    found = _Found()
    for found.asked in range(1, TIMES_ASKED + 1):
        try:
            answer = judge.ask(REMINDER[prompt.type] if any(found.said) else prompt.fill(values))
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
    """A judge's replies to one prompt so far."""

    asked: int = 0
    said: list[str] = field(default_factory=list)
    thought: list[str | None] = field(default_factory=list)
    tokens: tuple[int, int] = (0, 0)
    counted: str = "tokenizer"
    error: str | None = None
    is_final: bool = False
    thinking_cut: bool = False

    def take(self, answer: JudgeAnswer) -> None:
        """Add a reply and its tokens, and clear the last error."""
        self.said.append(answer.text)
        self.thought.append(answer.thinking)
        self.thinking_cut = self.thinking_cut or answer.thinking_cut
        self.tokens = (self.tokens[0] + answer.prompt_tokens, self.tokens[1] + answer.new_tokens)
        self.error, self.counted = None, answer.counted

    def record(self, status: str, value: Any = None) -> Record:
        """Return the fields of a judgment's record; ``value`` is the rating or verdict, under ``read``."""
        last = self.said[-1] if self.said else None
        head = {"read": value, "judgment": last, "asked": self.asked, "earlier": list(self.said[:-1])}
        counts = {"prompt_tokens": self.tokens[0], "new_tokens": self.tokens[1], "tokens_counted": self.counted}
        error = {"error": self.error, **({"final": True} if self.is_final else {})} if self.error else {}
        thinking: Record = {"thinking": list(self.thought)} if any(text is not None for text in self.thought) else {}
        if self.thinking_cut:
            thinking["thinking_cut"] = True
        return {**head, **counts, "status": status, **thinking, **error}


RULES_VERSION = 1
"""Increased when a change of the rules would rate the same answer differently."""
EFFECTIVE: Mapping[str, Any] = {"judge": "rules", "rules_version": RULES_VERSION}
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return _WORD.findall(text.lower())


def rate(answer: str, reference: str, question: str) -> int:
    """Rate an answer from 1 (no word in common with the reference) to 10 (the same words).

    The rating grows with the F1 score of the words in any order, times the answer's share of those reference words that
    are not in the question: "Your name is Dan." is not a good answer if "Your name is Ben." is right.
    """
    said, right = words_of(answer), words_of(reference)
    if not said or not right:
        return 1
    common = sum(min(said.count(word), right.count(word)) for word in set(said))
    asked_for = set(right) - set(words_of(question)) or set(right)
    return 1 + round(9 * 2 * common / (len(said) + len(right)) * len(asked_for & set(said)) / len(asked_for))


@dataclass(frozen=True)
class RuleJudge:
    """The rule-based judge for one turn of one question; it looks at the answers, not at the prompt."""

    question: Question
    turn: int
    answers: Sequence[str]
    """One answer to rate, or two to compare, in the order of the prompt."""

    def ask(self, _: str) -> JudgeAnswer:
        """Return the rating or the verdict, with its reason."""
        references = self.question.reference or ()
        if len(references) < self.turn:
            return _answer("By rule: this question has no reference to compare the answer with, so there is no rating.")
        asked, right = self.question.turns[self.turn - 1], references[self.turn - 1]
        ratings = [rate(answer, right, asked) for answer in self.answers]
        if len(ratings) == 1:
            return _answer(f"By rule: the words of the answer beside those of the reference. Rating: [[{ratings[0]}]]")
        verdict = "C" if ratings[0] == ratings[1] else "A" if ratings[0] > ratings[1] else "B"
        return _answer(f"By rule: A {ratings[0]}, B {ratings[1]} by the words of the reference. [[{verdict}]]")


def _answer(text: str) -> JudgeAnswer:
    return JudgeAnswer(text, 0, 0, "none")
