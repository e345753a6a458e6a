"""Turn messages into tokens, with the tokenizer's chat template or, if a base model has none, in a plain form.

The plain form, byte for byte (the system text and the blank line are left out if there is none)::

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
from llmjobs.prompt_format import PromptFormat, Thinking, check_has_template, is_template_error

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
        """Find the tokenizer's form and how its turns end; warn once about anything unusual.

        Raises:
            ModelError: the chat template does not support the requested ``thinking``.

        """
        self.form = "template" if getattr(tokenizer, "chat_template", None) else "plain"
        self.format = PromptFormat(
            tokenizer, who=who, uses_template=self.form == "template", thinking=thinking, date=date
        )
        if self.form == "plain":
            warn("the model has no chat template: it gets 'User: …' and 'Assistant: …' lines")
            check_has_template(who, thinking, has_template=False)
        elif not self.format.takes_system:
            warn("the model's chat template has no system role: the system text is put before the first message")
        self.end_ids, self.stops = self.format.ends if self.form == "template" else (frozenset(), (PLAIN_STOP,))
        self.encode = lru_cache(maxsize=32)(self._encode)

    def text(self, messages: Sequence[Message]) -> str:
        """Return the prompt as text, ready for the assistant's answer.

        Raises:
            ModelError: the template refuses the messages; the line gives the reason.

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
        """The part of the prompts that belongs to the protocol, and a digest of two probes that identifies the rest."""
        written = [self.text(messages) for messages in _PROBES]
        asked = repr([(text, self.format.encode(text)) for text in written])
        if self.format.is_thinking:
            asked += repr(self.format.cut_tokens)  # since thinking is ended where it has used up its tokens
        prompts = hashlib.sha256(asked.encode()).hexdigest()[:16]
        return {"prompt_form": self.form, **self.format.to_record(), "prompts": prompts, "bos": self.format.bos}

    def _encode(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        """Encode the prompt with exactly one BOS, if the model has one."""
        return self.format.encode(self.text(messages))


def _plain(messages: Sequence[Message]) -> str:
    system = f"{messages[0].content.strip()}\n\n" if messages and messages[0].role == "system" else ""
    turns = [f"{NAMES[m.role]}: {m.content.strip()}" for m in messages if m.role != "system"]
    return system + "\n".join([*turns, "Assistant:"])
