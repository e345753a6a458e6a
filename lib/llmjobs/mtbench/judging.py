"""One judgment: the prompt is filled, the judge asked, the rating read, asked again once where it cannot be read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmjobs.chat.errors import AnswerError, CallError, ContextFullError, MessageTooLongError, UnavailableError
from llmjobs.mtbench.judge_prompts import JudgePrompt, PromptSet
from llmjobs.mtbench.questions import Question
from llmjobs.mtbench.rating import REMINDER, is_weakly_rated, read_rating, read_verdict

Record = dict[str, Any]


@dataclass(frozen=True)
class Said:
    """What a judge said, and its tokens."""

    text: str
    prompt_tokens: int
    new_tokens: int
    counted: str
    thinking: str | None = None
    """What the judge wrote for itself before it; nothing is read there."""


class Talk(Protocol):
    """A conversation with a judge; :meth:`ask` keeps what was said before."""

    def ask(self, text: str) -> Said:
        """Ask, and take the whole answer."""


OpenTalk = Callable[[str, str], Talk]
"""System prompt and a label of the call → a conversation."""
Turns = Sequence[str]


def judge_single(
    prompts: PromptSet, question: Question, answer: Turns, turn: int, *, with_reference: bool, talk: OpenTalk
) -> Record:
    """Rate turn ``turn`` (from 1) of an answer; the record's ``status`` is ``ok``, ``unread`` or ``error``."""
    prompt = prompts.choose("single", with_reference=with_reference, turn=turn)
    values = _questions(question) | {"answer": answer[0]} | {f"answer_{i + 1}": text for i, text in enumerate(answer)}
    found = _ask(prompt, values, talk, f"{question.id}.{turn}", read_rating)
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
    talk: OpenTalk,
) -> Record:
    """Compare two answers in both orders; verdicts that disagree are a tie.

    ``winner`` is ``first``, ``second``, ``tie``, or None where one of the two orders has no verdict.
    """
    prompt = prompts.choose("pairwise", with_reference=with_reference, turn=turn)
    orders = []
    for place, (a, b) in enumerate(((first, second), (second, first)), start=1):
        values = _questions(question) | {"answer_a": a[0], "answer_b": b[0]}
        values |= {
            f"answer_{side}_{i + 1}": text for side, turns in (("a", a), ("b", b)) for i, text in enumerate(turns)
        }
        found = _ask(prompt, values, talk, f"{question.id}.{turn}.order{place}", read_verdict)
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


def _ask(prompt: JudgePrompt, values: dict[str, str], talk: OpenTalk, label: str, read: Callable[[str], Any]) -> Record:
    """Ask, and once more where nothing can be read or a local judge said nothing."""
    opened = talk(prompt.system, label)
    found = _Found()
    for asked in (1, 2):
        found.asked = asked
        try:
            answer = opened.ask(prompt.fill(values) if not found.said else REMINDER[prompt.type])
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
    """What a judge said to one prompt, so far."""

    asked: int = 0
    said: list[str] = field(default_factory=list)
    thought: list[str | None] = field(default_factory=list)
    tokens: tuple[int, int] = (0, 0)
    counted: str = "tokenizer"
    error: str | None = None
    is_final: bool = False

    def take(self, answer: Said) -> None:
        self.said.append(answer.text)
        self.thought.append(answer.thinking)
        self.tokens = (self.tokens[0] + answer.prompt_tokens, self.tokens[1] + answer.new_tokens)
        self.error, self.counted = None, answer.counted

    def record(self, status: str, value: Any = None) -> Record:
        last = self.said[-1] if self.said else None
        head = {"read": value, "judgment": last, "asked": self.asked, "earlier": list(self.said[:-1])}
        counts = {"prompt_tokens": self.tokens[0], "new_tokens": self.tokens[1], "tokens_counted": self.counted}
        error = {"error": self.error, **({"final": True} if self.is_final else {})} if self.error else {}
        told = {"thinking": list(self.thought)} if any(text is not None for text in self.thought) else {}
        return {**head, **counts, "status": status, **told, **error}
