"""Messages into tokens: the tokenizer's own chat template, or a plain form for a base model without one.

The plain form, byte for byte (the system text and its blank line only where there is one)::

    You are helpful.

    User: Hello.
    Assistant: Hello. How can I help you?
    User: What is your name?
    Assistant:
"""

import datetime
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from llmjobs.chat.messages import Message
from llmjobs.errors import ModelError, printable
from llmjobs.prompt_format import PromptFormat, Thinking, is_template_error

log = logging.getLogger(__name__)
NAMES = {"user": "User", "assistant": "Assistant"}
PLAIN_STOP = "\nUser:"
_PROBES = (
    (Message("user", "Quagga"),),
    (Message("system", "Axolotl"), Message("user", "Quagga"), Message("assistant", "Zebra"), Message("user", "Okapi")),
)


class ChatPrompt:
    """Writes and encodes conversations for one tokenizer."""

    def __init__(
        self,
        tokenizer: Any,
        warn: Callable[[str], None] = log.warning,
        *,
        who: str = "the model",
        thinking: Thinking | None = "off",
        date: datetime.date | None = None,
    ) -> None:
        """Find out which form the tokenizer takes and how its turns end; says once what is unusual.

        Raises:
            ModelError: the chat template cannot do what ``thinking`` asks for.

        """
        self.form = "template" if getattr(tokenizer, "chat_template", None) else "plain"
        self.format = PromptFormat(
            tokenizer, who=who, uses_template=self.form == "template", thinking=thinking, date=date
        )
        if self.form == "plain":
            warn("the model has no chat template: it gets 'User: …' and 'Assistant: …' lines")
            if not self.format.is_off and thinking is not None:
                raise ModelError(f"{who}: thinking: {thinking} needs a chat template, and there is none; remove it")
        elif not self.format.takes_system:
            warn("the model's chat template has no system role: the system text stands before the first message")
        self.end_ids, self.stops = self.format.ends if self.form == "template" else (frozenset(), (PLAIN_STOP,))
        self.encode = lru_cache(maxsize=32)(self._encode)

    def text(self, messages: Sequence[Message]) -> str:
        """The prompt as text, ready for the assistant's answer.

        Raises:
            ModelError: the template refuses the messages; the line says why.

        """
        if self.form == "plain":
            return _plain(messages)
        system = messages[0].content if messages and messages[0].role == "system" else ""
        values = [message.to_builtin() for message in (messages[1:] if system else messages)]
        try:
            return self.format.render(self.format.with_system(system, values) if values else values)
        except Exception as error:
            if not is_template_error(error):
                raise
            raise ModelError(f"the model's chat template refuses these messages: {printable(str(error))}") from None

    def to_record(self) -> Mapping[str, Any]:
        """What of the prompts belongs to the protocol, and a digest of two probes that stands for all of it."""
        written = [self.text(messages) for messages in _PROBES]
        asked = repr([(text, self.format.encode(text)) for text in written])
        prompts = hashlib.sha256(asked.encode()).hexdigest()[:16]
        return {"prompt_form": self.form, **self.format.to_record(), "prompts": prompts, "bos": self.format.bos}

    def _encode(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        """Tokens of the prompt. BOS is there once, never twice."""
        return self.format.encode(self.text(messages))


def _plain(messages: Sequence[Message]) -> str:
    system = f"{messages[0].content.strip()}\n\n" if messages and messages[0].role == "system" else ""
    turns = [f"{NAMES[m.role]}: {m.content.strip()}" for m in messages if m.role != "system"]
    return system + "\n".join([*turns, "Assistant:"])
