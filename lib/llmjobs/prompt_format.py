"""How a tokenizer's prompts are written: BOS, thinking, the date, the ends of a turn. One place for every job.

A chat template is a program that comes with a model. It may write BOS or not, open a thinking block, print today's
date, or add its own system message. Rendering probes shows what it does, so that each of these is decided here once:
exactly one BOS if the model was trained with one, thinking as the manifest says, one date for a whole run. No torch:
the tokenizer is passed in.
"""

import datetime
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

from llmjobs.errors import ModelError, printable
from llmjobs.stop_strings import before_stop
from llmjobs.thinking import SWITCHES, Marks, SplitReply, ThinkingLimit, is_open, marks_in, split_reply

ChatMessage = Mapping[str, str]
Tokens = tuple[int, ...]
Thinking = Literal["off", "on"] | int
_SYSTEM, _ANSWER, _NEXT = "Axolotl", "Zebra", "Quagga"
_OTHER_DATE = datetime.date(1999, 12, 31)


class PromptFormat:
    """Writes prompts for one tokenizer.

    ``thinking``: ``off``, ``on`` or a number of tokens; None leaves it to the template. ``date``: the date that a
    template prints as today's; None uses the clock. ``uses_template`` is off for plain prompts, where only BOS matters.

    Raises:
        ModelError: there is no chat template, or it cannot do what ``thinking`` asks for.

    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        who: str = "the model",
        uses_template: bool = True,
        thinking: Thinking | None = "off",
        date: datetime.date | None = None,
    ) -> None:
        self.tokenizer, self.who, self.date = tokenizer, who, date
        self.template = _template_text(tokenizer) if uses_template else ""
        if uses_template and not self.template:
            raise ModelError(f"{who}: its tokenizer has no chat template; remove chat_template: true")
        self.prefix, self._bos_ids = _bos(tokenizer)
        self.bos = "added" if self.prefix else "none"
        self.asked = thinking
        self.marks: Marks | None = None
        self._values: dict[str, Any] = {}
        self._end = ""
        self._closes = False
        self._blank: dict[int, bool] = {}
        self.thinking = "none"
        """What the prompts do: ``none`` (a template without thinking), ``on …`` or ``off …``, and how."""
        if self.template:
            self._decide()

    # --- BOS -------------------------------------------------------------------------------------------------------

    def begin(self, ids: Sequence[int]) -> Tokens:
        """Tokens to put before a prompt so that BOS appears exactly once: the prefix, or nothing."""
        if not self._begins_with_bos(ids):
            return self.prefix
        self.bos = "in the text"
        return ()

    def encode(self, text: str) -> Tokens:
        """Tokens of a complete prompt, with BOS if the model was trained with one."""
        ids = tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        return self.begin(ids) + ids

    def _begins_with_bos(self, ids: Sequence[int]) -> bool:
        """Whether the text starts with BOS, perhaps after white space such as a template's line break."""
        for token in ids[:4]:
            if token in self._bos_ids:
                return True
            if token not in self._blank:
                self._blank[token] = not str(self.tokenizer.decode([token])).strip()
            if not self._blank[token]:
                return False
        return False

    # --- messages into text ----------------------------------------------------------------------------------------

    def render(self, messages: Sequence[ChatMessage]) -> str:
        """The prompt as text, up to the answer; with ``thinking: off`` it never ends inside a thinking block.

        Raises:
            jinja2.TemplateError: the template refuses the messages.

        """
        text = self._apply(messages, self._values)
        if not self.marks or not self.is_off:
            return text
        tail = self._end if text.endswith(self._end) else _behind_last(text, messages)
        if self._closes or is_open(tail, self.marks):
            text += self._closing(tail)
        return text

    def with_system(self, system: str, messages: Sequence[ChatMessage], delimiter: str = "\n\n") -> list[ChatMessage]:
        """Put a system text before messages: as its own message, or inside the first one if there is no such role.

        ``delimiter`` is left out if there is white space at the border.
        """
        if not system:
            return list(messages)
        if self.takes_system:
            return [{"role": "system", "content": system}, *messages]
        first = dict(messages[0])
        text = first["content"]
        between = "" if not text or system[-1].isspace() or text[0].isspace() else delimiter
        return [first | {"content": f"{system}{between}{text}"}, *messages[1:]]

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template has a system role and writes its text."""
        messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": "a"}]
        return _SYSTEM in (self._probe(messages) or "")

    def added_text(self, system: str = "") -> str:
        """The text that the template itself adds before the first message, without role marks.

        It is the text before the first user message that is not also before the second one: ``You are a helpful
        assistant.``, ``Today Date: 26 Jul 2024``. The text of ``system`` is left out too.
        """
        if not self.template:
            return ""
        user = {"role": "user", "content": _NEXT}
        first = self._probe(self.with_system(system, [user])) or ""
        second = self._probe([{"role": "user", "content": "a"}, {"role": "assistant", "content": _ANSWER}, user]) or ""
        before, between = first.partition(_NEXT)[0], second.rpartition(_ANSWER)[2].partition(_NEXT)[0]
        if system:
            before = before.replace(system.strip(), "", 1)
        common = 0
        while common < min(len(before), len(between)) and before[-common - 1] == between[-common - 1]:
            common += 1
        rest = before[: len(before) - common]
        for token in sorted(self._special_tokens(), key=len, reverse=True):
            rest = rest.replace(token, "\n")
        lines = [line.strip() for line in rest.splitlines()]
        words = "\n".join(line for line in lines if line and line.strip("<|>[]#: ").lower() not in _ROLES)
        return words if any(character.isalpha() for character in words) else ""

    # --- what decides the prompts ----------------------------------------------------------------------------------

    @cached_property
    def prompt_date(self) -> str | None:
        """The date that the template prints; None if it prints none."""
        if not self.template or self.date is None:
            return None
        messages = [{"role": "user", "content": _NEXT}]
        now = self._probe(messages)
        kept, self.date = self.date, _OTHER_DATE
        try:
            other = self._probe(messages)
        finally:
            self.date = kept
        return self.date.isoformat() if now != other else None

    @property
    def is_off(self) -> bool:
        """Whether thinking is off."""
        return self.asked in ("off", 0)

    @cached_property
    def begins_thinking(self) -> bool:
        """Whether the prompt opens the thinking block, so that a reply starts inside it."""
        return self.marks is not None and not self.is_off and is_open(self._end, self.marks)

    @property
    def is_thinking(self) -> bool:
        """Whether a reply may start with thinking."""
        return self.thinking.startswith("on")

    @cached_property
    def cut_tokens(self) -> Tokens:
        """Tokens that are inserted to end a thinking that has used up its tokens."""
        text = self.marks.cut_text() if self.marks else ""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def thinking_limit(self, all_tokens: int, answer_tokens: int) -> ThinkingLimit | None:
        """The limit of thinking in a reply of ``all_tokens`` that leaves the answer its own; None without thinking."""
        if not self.is_thinking or not self.marks:
            return None
        most = max(all_tokens - answer_tokens, 0)
        return ThinkingLimit(self.marks, self.begins_thinking, most, answer_tokens, self.cut_tokens)

    def check_scoring(self, what: str) -> None:
        """Refuse log-likelihoods that would be read inside the thinking.

        Raises:
            ModelError: names the model and the remedy.

        """
        if self.marks and (self.is_thinking or self.begins_thinking):
            raise ModelError(
                f"{self.who}: {what} scores the options right after the prompt, where this model would still be"
                f" thinking (thinking: {self.asked}); set thinking: off, or use output_type: generate_until"
            )

    def to_record(self, system: str = "") -> dict[str, Any]:
        """The settings that belong to the protocol; only those that the template has."""
        if not self.template:
            return {}
        return {
            "template_hash": hashlib.sha256(self.template.encode()).hexdigest()[:16],
            "thinking": self.thinking,
            "prompt_date": self.prompt_date,
            "template_system": self.added_text(system),
        }

    def split(self, ids: Sequence[int], text: str, stop: Sequence[str] = ()) -> SplitReply:
        """Separate the thinking from a generated reply, given as tokens and as text (without special tokens).

        The marks may be special tokens, which the text lacks, so they are searched in the tokens. ``stop`` ends the
        answer, not the thinking.
        """
        raw = str(self.tokenizer.decode(list(ids), skip_special_tokens=False)) if self.marks else text
        if not self.marks or not (self.begins_thinking or raw.lstrip().startswith(self.marks.open)):
            found = split_reply(text)
            # otherwise it has already ended there
            answer = _until(found.answer, stop) if self.is_thinking else found.answer
            if found.thinking is None:
                return replace(found, answer=answer)
            count = len(self.tokenizer(found.thinking, add_special_tokens=False)["input_ids"])
            return replace(found, answer=answer, tokens=count)
        end = self._end_of_thinking(ids)
        thought = str(self.tokenizer.decode(list(ids[:end]), skip_special_tokens=False)).strip()
        answer = str(self.tokenizer.decode(list(ids[end:]), skip_special_tokens=True)) if end < len(ids) else ""
        inside = thought.removeprefix(self.marks.open).partition(self.marks.close)[0]
        return SplitReply(inside.strip(), _until(answer, stop).strip(), end)

    def _end_of_thinking(self, ids: Sequence[int]) -> int:
        """Number of tokens of the thinking, including its closing mark; all tokens if it is never closed."""
        assert self.marks is not None
        window = 4 * len(self.marks.close)
        for end in range(1, len(ids) + 1):
            if self.marks.close in self.tokenizer.decode(list(ids[max(0, end - window) : end])):
                return end
        return len(ids)

    @cached_property
    def ends(self) -> tuple[frozenset[int], tuple[str, ...]]:
        """Tokens that end an answer and texts that start the user's next part, both read from a rendered turn."""
        turns = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": _ANSWER},
            {"role": "user", "content": _NEXT},
        ]
        written = self._probe(turns, generation_prompt=False) if self.template else None
        if written is None or (self.is_thinking and self.marks and self.marks.ends_like_a_turn):
            # gpt-oss ends its thinking with the same mark as its turn
            return frozenset(), ()
        between = written.rpartition(_ANSWER)[2].partition(_NEXT)[0]
        ids = self.tokenizer(between.lstrip(), add_special_tokens=False)["input_ids"]
        special = {int(i) for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        if ids and ids[0] in special:
            return frozenset(ids[:1]), ()
        header = between.strip()
        return frozenset(), (header,) if len(header) >= 3 else ()

    # --- finding it out --------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        """Choose the switch or the closed block, and check the result on a rendered prompt."""
        self.marks = marks_in(self.template)
        switch = self._switch()
        if switch:
            self._values = {} if self.asked is None else {switch: not self.is_off}
        messages = [{"role": "user", "content": _NEXT}]
        written = self._probe(messages)
        tail = self._end = _behind_last(written, messages) if written is not None else ""
        self.marks = self.marks or marks_in(tail)
        if self.asked is None:
            self.thinking = "as the template writes it" if self.marks else "none"
        elif self.marks is None:
            self._check_unknown(tail)
        elif self.is_off:
            self._closes = is_open(tail, self.marks) or (not switch and self.marks.close not in tail)
            how = f"{switch}=false" if switch else "closed by the template"
            self.thinking = f"off ({'closed block' if self._closes else how})"
        elif not is_open(tail, self.marks) and self.marks.close in tail:
            raise ModelError(
                f"{self.who}: its chat template closes the thinking in every prompt, so thinking: {self.asked} has no"
                " effect; set thinking: off"
            )
        else:
            self.thinking = f"on ({switch}=true)" if switch else "on (the template's own)"

    def _check_unknown(self, tail: str) -> None:
        """Refuse a prompt that ends in an unknown mark, and thinking for a template without it."""
        last = tail.strip().rpartition("\n")[2].lower()
        is_odd = any(word in last for word in ("think", "reason", "thought")) and not _CLOSED.search(last)
        if is_odd:
            remedy = "remove chat_template: true" if self.is_off else "set thinking: off"
            raise ModelError(
                f"{self.who}: its chat template ends in {printable(last)[-40:]!r}, which looks like the beginning of"
                " the model's thinking, and llmjobs does not know how it ends; "
                f"{remedy}, or use another model"
            )
        if not self.is_off:
            raise ModelError(
                f"{self.who}: llmjobs finds no thinking block in its chat template, so thinking: {self.asked} has no"
                " effect; remove it"
            )

    def _switch(self) -> str | None:
        """The variable of the template that changes a prompt when it is toggled."""
        messages = [{"role": "user", "content": "a"}]
        for name in SWITCHES:
            if name in self.template:
                on, off = self._probe(messages, {name: True}), self._probe(messages, {name: False})
                if on is not None and off is not None and on != off:
                    return name
        return None

    def _closing(self, tail: str) -> str:
        """The text that ends the thinking at the end of a prompt: the rest of an open block, or an empty one."""
        assert self.marks is not None
        if not is_open(tail, self.marks):
            return "" if self.marks.close in tail else self.marks.closed_block()
        if self.marks.ends_like_a_turn:
            return self.marks.empty
        inside = tail.rpartition(self.marks.open)[2]
        return "\n\n"[len(inside) - len(inside.rstrip("\n")) :] + f"{self.marks.close}\n\n"

    def _probe(
        self,
        messages: Sequence[ChatMessage],
        values: Mapping[str, Any] | None = None,
        *,
        generation_prompt: bool = True,
    ) -> str | None:
        """A rendered probe; None if the template refuses it."""
        try:
            return self._apply(messages, self._values if values is None else values, generation_prompt)
        except Exception as error:
            if not is_template_error(error):
                raise
            return None

    def _apply(self, messages: Sequence[ChatMessage], values: Mapping[str, Any], generation_prompt: bool = True) -> str:
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": generation_prompt, **values}
        apply: Callable[..., Any] = self.tokenizer.apply_chat_template
        if self.date is not None and getattr(apply, "takes_date", False):
            options["date"] = self.date.isoformat()
        return str(apply([dict(message) for message in messages], **options))

    def _special_tokens(self) -> set[str]:
        added = getattr(self.tokenizer, "added_tokens_decoder", None) or {}
        named = [str(token) for token in getattr(self.tokenizer, "all_special_tokens", None) or ()]
        return {text for text in (*named, *(str(token) for token in added.values())) if text.strip()}


class ServerFormat:
    """As :class:`PromptFormat`, for prompts that a server's own template and tokenizer write: little is known of them.

    ``thinking`` is asked of the server, and what it sent is read from the reply's text.
    """

    bos = "the server's"
    takes_system = True
    ends: tuple[frozenset[int], tuple[str, ...]] = (frozenset(), ())

    def __init__(self, *, uses_template: bool, thinking: Thinking | None = "off") -> None:
        self.uses_template, self.asked = uses_template, thinking

    @property
    def is_thinking(self) -> bool:
        """Whether a reply may start with thinking, and has tokens for it."""
        return self.uses_template and self.asked not in ("off", 0, None)

    def with_system(self, system: str, messages: Sequence[ChatMessage], delimiter: str = "\n\n") -> list[ChatMessage]:
        """Put a system text before messages, as its own message."""
        return [{"role": "system", "content": system}, *messages] if system else list(messages)

    def thinking_limit(self, all_tokens: int, answer_tokens: int) -> ThinkingLimit | None:
        """None: no tokens can be written in the model's place."""
        return None

    def to_record(self, system: str = "") -> dict[str, Any]:
        """What was asked of the server's template."""
        if not self.uses_template:
            return {}
        return {"thinking": f"{'on' if self.is_thinking else 'off'} (asked of the server)"}

    def split(self, ids: Sequence[int], text: str, stop: Sequence[str] = ()) -> SplitReply:
        """Separate the thinking from a reply's text; ``stop`` ends the answer, not the thinking."""
        found = split_reply(text)
        return replace(found, answer=_until(found.answer, stop)) if self.is_thinking else found


_CLOSED = re.compile(r"</|\[/|<\|/|\b(no|not|off|end|without|false|disabled|final|answer|response)\b|no_?think|nothink")
"""Words and marks in the last line of a prompt which mean that there is no thinking, or that it is over."""
_ROLES = frozenset({"system", "user", "assistant", "human", "bot", "inst", "sys", "/sys", "<sys>", "model", ""})


def _until(answer: str, stop: Sequence[str]) -> str:
    """The answer up to the first of ``stop``. Blank lines before it, for example after thinking, do not end it."""
    return before_stop(answer.lstrip(), stop)


def _behind_last(text: str, messages: Sequence[ChatMessage]) -> str:
    """The text of a prompt after its last message."""
    last = messages[-1]["content"].strip() if messages else ""
    return text.rpartition(last)[2] if last else text


def check_has_template(who: str, thinking: Thinking | None, *, has_template: bool) -> None:
    """Refuse thinking for a model without a chat template.

    Raises:
        ModelError: names the model and the remedy.

    """
    if not has_template and thinking not in ("off", 0, None):
        raise ModelError(f"{who}: thinking: {thinking} needs a chat template, and there is none; remove it")


def unused_thinking(chat_template: bool, thinking: Thinking) -> str:
    """A line on ``thinking`` that has no effect, because prompts are written without a chat template; or nothing."""
    if chat_template or thinking in ("off", 0):
        return ""
    return (
        f"thinking: {thinking} has no effect without a chat template; add chat_template: true to the model,"
        " or remove thinking"
    )


def is_template_error(error: Exception) -> bool:
    """Jinja's own errors, without importing it for a tokenizer that has no template."""
    return type(error).__module__.partition(".")[0] == "jinja2"


def _template_text(tokenizer: Any) -> str:
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, dict):
        return str(tokenizer.get_chat_template())
    return str(found or "")


def _bos(tokenizer: Any) -> tuple[Tokens, frozenset[int]]:
    """The prefix of every prompt, and the tokens that count as BOS.

    The tokenizer's own default decides. One that sets ``add_bos_token`` but adds none (a tokenizer.json without its
    post-processor) was trained with it.
    """
    with_special = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    place = next((i for i in range(len(with_special)) if with_special[i : i + len(plain)] == plain), None)
    bos_id = getattr(tokenizer, "bos_token_id", None)
    if place is None:  # the special token changes how the first word is split
        place = int(bos_id is not None and with_special[:1] == [bos_id])
    prefix = tuple(with_special[:place])
    if not prefix and isinstance(bos_id, int) and getattr(tokenizer, "add_bos_token", None) is True:
        prefix = (bos_id,)
    return prefix, frozenset([*prefix[:1], *([bos_id] if isinstance(bos_id, int) else [])])
