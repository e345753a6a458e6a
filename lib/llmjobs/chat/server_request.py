"""What a chat completion request may ask for, and the answers in OpenAI's form."""

import time
from collections.abc import Mapping
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmjobs.chat.answering import Reply
from llmjobs.chat.backend import Sampling
from llmjobs.chat.messages import Message, read_messages
from llmjobs.errors import LlmjobsError


class RefusedError(LlmjobsError):
    """A request that is refused, with its HTTP status."""

    def __init__(self, status: int, message: str, retry_after_s: int | None = None) -> None:
        """``retry_after_s`` goes into the header of that name."""
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s


class StreamOptions(BaseModel):
    """What else a stream should carry."""

    include_usage: bool = False


class ChatCompletion(BaseModel):
    """The keys that are read; others are ignored, as servers of this kind do."""

    model_config = ConfigDict(extra="ignore")

    model: str = ""
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=10_000)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    n: Literal[1] | None = 1

    def sampling(self, default: Sampling) -> Sampling:
        """The request's sampling; never a longer answer than the server gives."""
        wanted = self.max_completion_tokens or self.max_tokens or default.max_new_tokens
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            min(wanted, default.max_new_tokens),
            default.temperature if self.temperature is None else self.temperature,
            self.top_p or default.top_p,
            tuple(stop for stop in stops if stop)[:4],
        )

    def conversation(self, system: str | None) -> list[Message]:
        """The messages, with the server's system message where the request has none."""
        found = read_messages([{**value, "content": _text(value.get("content"))} for value in self.messages])
        return [Message("system", system), *found] if system and found[0].role != "system" else found


def parse(body: bytes) -> ChatCompletion:
    """Read a request.

    Raises:
        RefusedError: 400, naming the key.

    """
    try:
        return ChatCompletion.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise RefusedError(400, f"{where}: {first['msg']}") from None


def _text(content: Any) -> Any:
    """Text as it is, or joined from parts of the type ``text``."""
    if not isinstance(content, list):
        return content
    parts = [part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
    return "".join(parts) if len(parts) == len(content) else None


class Completion:
    """The objects that answer one request."""

    def __init__(self, model: str) -> None:
        """A fresh id."""
        self.head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, reply: Reply) -> dict[str, Any]:
        """The answer in one object."""
        message = {"role": "assistant", "content": reply.text}
        choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason, "logprobs": None}
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": usage(reply)}

    def chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """One piece of a stream."""
        choice = {"index": 0, "delta": dict(delta), "finish_reason": finish_reason, "logprobs": None}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice]}

    def usage_chunk(self, reply: Reply) -> dict[str, Any]:
        """The last piece, where it was asked for."""
        return {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": usage(reply)}


def usage(reply: Reply) -> dict[str, Any]:
    """Tokens of prompt and answer; those of a summary count as prompt."""
    prompt = reply.prompt_tokens + reply.side_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": reply.new_tokens,
        "total_tokens": prompt + reply.new_tokens,
        "prompt_tokens_details": {"cached_tokens": reply.reused_tokens},
    }


def error_body(message: str, status: int) -> dict[str, Any]:
    """An error in OpenAI's form."""
    kind = "invalid_request_error" if 400 <= status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}
