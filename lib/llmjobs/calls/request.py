"""One request to a server and what came back: text, how it ended, and the server's count of tokens."""

from collections.abc import Iterator, Mapping
from typing import Any

from llmjobs.calls.event_stream import NotCompletionError, open_completion
from llmjobs.calls.retry import CutAnswerError, FilteredError, GivenUpError

THINKING = ("reasoning_content", "reasoning")
"""Keys in which servers put a model's thinking; it keeps the connection alive but is not part of the answer."""

GIVEN_UP = frozenset({"error", "abort", "aborted", "cancelled", "canceled"})
"""Finish reasons of answers that the server did not complete, as OpenRouter, vLLM and SGLang give them."""


class Answer:
    """One request and its answer; nothing in the answer is trusted."""

    def __init__(self, wanted: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
        """``sent`` is the part of ``wanted`` that this server accepts."""
        self.wanted, self.sent = wanted, sent
        self.finish: str | None = None
        self.usage: Mapping[str, Any] = {}
        self.text = self._last = self.thinking = ""
        self.pieces_count = 0
        self.has_thinking = False

    def pieces(self, url: str, key: str, *, silence_s: float, answer_s: float) -> Iterator[str]:
        """Send the request; yield the answer's text in pieces, some of them empty.

        Raises:
            CutAnswerError: the stream ended in the middle; and what :mod:`llmjobs.calls.event_stream` raises.

        """
        with open_completion(url, key, self.sent, silence_s=silence_s, answer_s=answer_s) as completion:
            for event in completion:
                piece, had_thinking = self.take(event), self.has_thinking
                if piece or had_thinking:
                    completion.watch.text_came()
                self.text += piece
                self.pieces_count += bool(piece)
                yield piece
        if not self.is_whole(is_done=completion.is_done):
            raise CutAnswerError

    def is_whole(self, *, is_done: bool) -> bool:
        """Whether the answer has come to its end; ``is_done``: the server said that nothing more comes."""
        return self.finish is not None or (is_done and bool(self.text))

    def take(self, event: Mapping[str, Any]) -> str:
        """Read one event; return its text.

        Raises:
            NotCompletionError: the event does not belong to a chat completion.

        """
        self.has_thinking = False
        if isinstance(usage := event.get("usage"), dict):
            self.usage = usage
        choices = event.get("choices") or []
        if not isinstance(choices, list):
            raise NotCompletionError("choices that are not a list")
        if not choices:
            return ""
        first = choices[0]
        if not isinstance(first, dict):
            raise NotCompletionError("a choice that is not an object")
        message = first.get("delta") or first.get("message") or {}
        if not isinstance(message, dict):
            raise NotCompletionError("a choice that is not an object")
        finish = first.get("finish_reason")
        if not isinstance(finish, str | None):
            raise NotCompletionError("a finish reason that is not text")
        had_ended = self.finish is not None
        self.finish = self.finish or finish or None
        thought = next((message[key] for key in THINKING if isinstance(message.get(key), str) and message[key]), "")
        self.has_thinking, self.thinking = bool(thought), self.thinking + thought
        piece = _text_of(message.get("content") or message.get("refusal") or first.get("text") or "")
        if self._repeats(piece, is_whole=bool(first.get("message")), had_ended=had_ended):
            return ""
        self._last = piece or self._last
        return piece

    def _repeats(self, piece: str, *, is_whole: bool, had_ended: bool) -> bool:
        """Whether a server repeats itself: its last event again, or the whole answer after its pieces."""
        return bool(self.text) and (
            (is_whole and piece == self.text) or (had_ended and piece in (self._last, self.text))
        )

    def check(self) -> None:
        """Refuse a response that the server, not the model, ended. An answer that the model ended may be empty.

        Raises:
            FilteredError: the server's content filter stopped it.
            GivenUpError: the server failed, or ended it for another reason.

        """
        if self.finish == "content_filter":
            raise FilteredError
        if self.finish and self.finish.lower() in GIVEN_UP:
            raise GivenUpError(self.finish)

    def counts(self) -> tuple[int | None, int | None]:
        """Tokens of prompt and answer, as counted by the server."""
        return _count(self.usage.get("prompt_tokens")), _count(self.usage.get("completion_tokens"))


def _text_of(content: Any) -> str:
    """The text itself, or joined from parts of the type ``text``, without the model's thinking."""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        content = "".join(str(part["text"]) for part in content if isinstance(part.get("text"), str))
    if not isinstance(content, str):
        raise NotCompletionError("an answer that is not text")
    return content


def _count(value: Any) -> int | None:
    """A server's token count; None if it is not a valid count."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else None
