"""Messages into tokens: the tokenizer's own chat template, or a plain form for a base model without one.

The plain form, byte for byte (the system text and its blank line only where there is one)::

    You are helpful.

    User: Hello.
    Assistant: Hello. How can I help you?
    User: What is your name?
    Assistant:
"""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from llmjobs.chat.messages import Message
from llmjobs.errors import ModelError, printable

log = logging.getLogger(__name__)
NAMES = {"user": "User", "assistant": "Assistant"}
PLAIN_STOP = "\nUser:"
DATE = "26 Jul 2024"
"""Given to templates that write a date (Llama 3): today's would make a resumed conversation differ from an unbroken
one. It is those templates' own default."""
_PROBE_ANSWER, _PROBE_NEXT = "Zebra", "Quagga"


class ChatPrompt:
    """Writes and encodes conversations for one tokenizer."""

    def __init__(self, tokenizer: Any, warn: Callable[[str], None] = log.warning) -> None:
        """Find out which form the tokenizer takes and how its turns end; says once what is unusual."""
        self.tokenizer = tokenizer
        self.form = "template" if getattr(tokenizer, "chat_template", None) else "plain"
        self.merges_system = self.form == "template" and not self._takes_system()
        if self.form == "plain":
            warn("the model has no chat template: it gets 'User: …' and 'Assistant: …' lines")
        if self.merges_system:
            warn("the model's chat template has no system role: the system text stands before the first message")
        self.end_ids, self.stops = self._endings()
        self.encode = lru_cache(maxsize=32)(self._encode)

    def text(self, messages: Sequence[Message]) -> str:
        """The prompt as text, ready for the assistant's answer.

        Raises:
            ModelError: the template refuses the messages; the line says why.

        """
        if self.form == "plain":
            return _plain(messages)
        if self.merges_system and messages and messages[0].role == "system":
            first = Message(messages[1].role, f"{messages[0].content}\n\n{messages[1].content}")
            messages = (first, *messages[2:])
        try:
            return self._apply(messages, add_generation_prompt=True)
        except Exception as error:
            if not _is_template_error(error):
                raise
            raise ModelError(f"the model's chat template refuses these messages: {printable(str(error))}") from None

    def _encode(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        """Tokens of the prompt. What the tokenizer adds in front by default (BOS) is there once, never twice."""
        text = self.text(messages)
        bos = self.tokenizer.bos_token
        has_bos = self.form == "template" and bool(bos) and text.startswith(str(bos))
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return (*(() if has_bos else self._prefix()), *ids)

    @lru_cache(maxsize=1)  # noqa: B019 - lives as long as its tokenizer
    def _prefix(self) -> tuple[int, ...]:
        with_special = list(self.tokenizer("a", add_special_tokens=True)["input_ids"])
        plain = list(self.tokenizer("a", add_special_tokens=False)["input_ids"])
        at = next((i for i in range(len(with_special)) if with_special[i : i + len(plain)] == plain), 0)
        return tuple(with_special[:at])

    def _apply(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        values = [message.to_builtin() for message in messages]
        options = {"tokenize": False, "add_generation_prompt": add_generation_prompt, "date_string": DATE}
        return str(self.tokenizer.apply_chat_template(values, **options))

    def _takes_system(self) -> bool:
        try:
            written = self._apply([Message("system", _PROBE_NEXT), Message("user", "a")], add_generation_prompt=True)
        except Exception as error:
            if not _is_template_error(error):
                raise
            return False
        return _PROBE_NEXT in written

    def _endings(self) -> tuple[frozenset[int], tuple[str, ...]]:
        """Tokens that end an answer and texts that begin the user's next part, both read off a rendered turn."""
        if self.form == "plain":
            return frozenset(), (PLAIN_STOP,)
        turns = [Message("user", "a"), Message("assistant", _PROBE_ANSWER), Message("user", _PROBE_NEXT)]
        try:
            written = self._apply(turns, add_generation_prompt=False)
        except Exception as error:
            if not _is_template_error(error):
                raise
            return frozenset(), ()
        between = written.rpartition(_PROBE_ANSWER)[2].partition(_PROBE_NEXT)[0]
        ids = self.tokenizer(between.lstrip(), add_special_tokens=False)["input_ids"]
        special = {int(i) for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        if ids and ids[0] in special:
            return frozenset(ids[:1]), ()
        header = between.strip()
        return frozenset(), (header,) if len(header) >= 3 else ()


def _plain(messages: Sequence[Message]) -> str:
    system = f"{messages[0].content.strip()}\n\n" if messages and messages[0].role == "system" else ""
    turns = [f"{NAMES[m.role]}: {m.content.strip()}" for m in messages if m.role != "system"]
    return system + "\n".join([*turns, "Assistant:"])


def _is_template_error(error: Exception) -> bool:
    """Jinja's own errors, without importing it for a tokenizer that has no template."""
    return type(error).__module__.partition(".")[0] == "jinja2"
