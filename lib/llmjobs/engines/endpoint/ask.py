"""Calls to one model on a server. If a job pays for them, they are journaled; failed calls are counted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from llmjobs.benchmarks.scoring_requests import Prompt
from llmjobs.calls.client import Endpoint, WholeAnswers
from llmjobs.calls.event_stream import CHAT, PLAIN
from llmjobs.calls.request import Answer
from llmjobs.calls.spending import PaidCalls, most_prompt_tokens
from llmjobs.engines.endpoint.logprobs import (
    ScoredAnswer,
    ScoredToken,
    Tail,
    UnprovenError,
    listed_tokens,
    tail_of,
    vllm_prompt_tokens,
)
from llmjobs.errors import AnswerError, CallError, ContextFullError, UnavailableError

AnyAnswer = TypeVar("AnyAnswer", bound=Answer)
Call = Mapping[str, Any]
Keep = Callable[[AnyAnswer], dict[str, Any]]
UNREAD = "unread"
"""Key of the reason why an answer could not be used; the next run makes that call again."""


class Client:
    """Sends requests to one model; safe for several threads."""

    def __init__(self, endpoint: Endpoint, thinking: bool | None) -> None:
        """``thinking`` is passed to the server's chat template; None passes nothing."""
        self.endpoint = endpoint
        self.paid: PaidCalls | None = None
        self._thinking = thinking

    def reply(self, prompt: Prompt, settings: Mapping[str, Any]) -> Call:
        """Return ``text``, ``thinking``, ``finish_reason``, and the server's token counts (None if it sends none).

        Raises:
            LlmjobsError: as :meth:`Endpoint.stream`, or the spending limit.

        """
        wanted = {**self._asked(prompt), **settings, "stream": True, "stream_options": {"include_usage": True}}
        most = (_most(prompt, ""), int(settings["max_tokens"]))

        def keep(answer: Answer) -> dict[str, Any]:
            call = {"text": answer.text, "thinking": answer.thinking or None, "finish_reason": answer.finish}
            return call | _counts(answer, most, len((answer.thinking + answer.text).encode()))

        return self._call(wanted, Answer, _path(prompt), most, keep)

    def next_tokens(self, prompt: Prompt, *, top: int, count: int = 1, record: bool = True) -> Call:
        """Return ``positions``: each generated token's text and value, and pairs for the most likely tokens there."""
        wanted: dict[str, Any] = {**self._asked(prompt), "max_tokens": count, "temperature": 0.0}
        wanted |= {"logprobs": True, "top_logprobs": top} if prompt.messages else {"logprobs": top}

        def read(answer: ScoredAnswer) -> dict[str, Any]:
            tokens = listed_tokens(answer)
            return {"positions": [[one.text, one.logprob, [list(pair) for pair in one.top]] for one in tokens]}

        return self._scored(wanted, prompt, "", count, read, record=record)

    def echo(self, prompt: Prompt, ending: str, *, record: bool = True) -> Call:
        """Return the ``tail`` of ``prompt`` and ``ending``, from an echo with log-probabilities."""
        wanted = {**self._asked(prompt, ending), "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
        return self._tail(wanted, prompt, ending, listed_tokens, (1, 0), record=record)

    def prompt_logprobs(self, prompt: Prompt, ending: str, *, record: bool = True) -> Call:
        """Return the same from vLLM's ``prompt_logprobs``; in a chat, the ending is the beginning of the answer."""
        wanted = {**self._asked(prompt, ending), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 1}
        if prompt.messages:
            wanted |= {"continue_final_message": True, "add_generation_prompt": False}
        return self._tail(wanted, prompt, ending, vllm_prompt_tokens, (0,), record=record)

    def _tail(
        self,
        wanted: Mapping[str, Any],
        prompt: Prompt,
        ending: str,
        read_tokens: Callable[[ScoredAnswer], list[ScoredToken]],
        generated: Sequence[int],
        *,
        record: bool,
    ) -> Call:
        def read(answer: ScoredAnswer) -> dict[str, Any]:
            made = answer.counts()[1]
            counts = generated if made is None or 0 in generated[:1] else (made, *generated)
            tokens = read_tokens(answer)
            found: Tail = tail_of(tokens, prompt.text, ending, counts)
            return {"tail": found.to_builtin()}

        return self._scored(wanted, prompt, ending, 1, read, record=record)

    def _scored(
        self,
        wanted: Mapping[str, Any],
        prompt: Prompt,
        ending: str,
        count: int,
        read: Callable[[ScoredAnswer], dict[str, Any]],
        *,
        record: bool,
    ) -> Call:
        most = (_most(prompt, ending), count)

        def keep(answer: ScoredAnswer) -> dict[str, Any]:
            try:
                found = read(answer)
            except UnprovenError as error:
                found = {UNREAD: str(error), "failed": str(error)}
            return found | _counts(answer, most, count)

        return self._call(wanted, ScoredAnswer, _path(prompt), most, keep, record=record)

    def _asked(self, prompt: Prompt, ending: str = "") -> dict[str, Any]:
        if not prompt.messages:
            return {"model": self.endpoint.address.model, "prompt": prompt.text + ending}
        messages = [{"role": role, "content": content} for role, content in prompt.messages]
        if ending:
            messages.append({"role": "assistant", "content": ending})
        asked: dict[str, Any] = {"model": self.endpoint.address.model, "messages": messages}
        if self._thinking is not None:
            asked["chat_template_kwargs"] = {"enable_thinking": self._thinking, "thinking": self._thinking}
        return asked

    def _call(
        self,
        wanted: Mapping[str, Any],
        kind: type[AnyAnswer],
        path: str,
        most: tuple[int, int],
        keep: Callable[[AnyAnswer], dict[str, Any]],
        *,
        record: bool = True,
    ) -> Call:
        """Make a call, or take its answer from the journal; without ``record`` (a probe), always make it."""

        def send(around: WholeAnswers) -> dict[str, Any]:
            return keep(self.endpoint.ask(wanted, kind, around, path=path))

        if self.paid is None:
            return send(WholeAnswers())
        key = self.paid.journal.key({"path": path, "request": wanted, "purpose": "question" if record else "probe"})
        known = self.paid.journal.find(key) if record else None
        return known or self.paid.make(key, "question" if record else "probe", most, send)


def _path(prompt: Prompt) -> str:
    return CHAT if prompt.messages else PLAIN


def _most(prompt: Prompt, ending: str) -> int:
    """The maximum number of tokens that a prompt can have."""
    return most_prompt_tokens([prompt.text, ending, *(content for _, content in prompt.messages)])


def _counts(answer: Answer, most: tuple[int, int], most_new: int) -> dict[str, Any]:
    """The server's token counts; if it sent none, the maximum is booked."""
    prompt, new = answer.counts()
    counts: dict[str, Any] = {"prompt_tokens": prompt, "new_tokens": new}
    if prompt is None or new is None:
        counts["booked"] = [most[0] if prompt is None else prompt, min(most[1], most_new) if new is None else new]
    return counts


FAILED_IN_A_ROW = 3
"""After this many consecutive questions without an answer, the rest is not sent to the server."""


def is_final(error: AnswerError | ContextFullError) -> bool:
    """Whether another try would end the same way, because the prompt does not fit.

    A refused request is none of these: the server may be set up differently when the next run asks.
    """
    return not isinstance(error, CallError)


class FailedInARow:
    """Gives up on a server that no longer answers."""

    def __init__(self) -> None:
        """Nothing has failed yet."""
        self._count = 0

    def count(self, error: str | None) -> None:
        """Count one question and its error; None if it was answered.

        Raises:
            UnavailableError: too many questions in a row had no answer.

        """
        self._count = self._count + 1 if error else 0
        if self._count >= FAILED_IN_A_ROW:
            raise UnavailableError(f"{self._count} questions in a row had no answer; the last error: {error}")
