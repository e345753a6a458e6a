"""Thinking: the part of a reply that a model writes before its answer, and the marks around it.

Templates publish it in two ways: a switch (``enable_thinking`` in Qwen3, ``thinking`` in DeepSeek-V3.1 and Granite),
or a prompt that simply ends inside an open block (DeepSeek-R1, QwQ). No torch, no tokenizer: text only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

DEFAULT_BUDGET = 2048
"""Tokens for thinking, in addition to the answer, if the manifest only says ``on``."""


@dataclass(frozen=True)
class Marks:
    """The text that opens a thinking block, and the one that closes it."""

    open: str
    close: str
    empty: str = ""
    """Text for "no thinking" at the end of a prompt; if empty, it is made of the two marks."""
    cut: str = ""
    """Text that ends thinking that has used up its tokens; if empty, it is made of the closing mark."""
    ends_like_a_turn: bool = False
    """Whether a message of thinking ends with the same token as the whole turn."""

    def closed_block(self) -> str:
        """An empty thinking block, as templates with a switch write it."""
        return self.empty or f"{self.open}\n\n{self.close}\n\n"

    def cut_text(self) -> str:
        """Text that is inserted to end a thinking that has used up its tokens."""
        return self.cut or f"\n{self.close}\n\n"


KNOWN = (
    Marks("<think>", "</think>"),
    Marks("<thinking>", "</thinking>"),
    Marks("<thought>", "</thought>"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("[THINK]", "[/THINK]"),
    Marks("◁think▷", "◁/think▷"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),
    Marks("<|begin_of_thought|>", "<|end_of_thought|>"),
    Marks(
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>",
        empty="<|channel|>final<|message|>",
        cut="<|end|><|start|>assistant<|channel|>final<|message|>",
        ends_like_a_turn=True,
    ),
    Marks("<|channel>thought\n", "<channel|>", empty="<|channel>thought\n<channel|>"),
    Marks("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
)
"""Of Qwen, DeepSeek and most others; EXAONE Deep; Seed-OSS; Magistral; Kimi; Command A; Sky-T1;
gpt-oss; Gemma 4; Apriel."""
SWITCHES = ("enable_thinking", "thinking")
"""Template variables that turn thinking on or off."""


def marks_in(text: str) -> Marks | None:
    """The marks that a template writes or removes; None for a template without thinking."""
    return next((marks for marks in KNOWN if marks.close in text or marks.open in text), None)


def is_open(text: str, marks: Marks) -> bool:
    """Whether ``text`` ends inside a thinking block."""
    return text.rfind(marks.open) > text.rfind(marks.close)


@dataclass(frozen=True)
class SplitReply:
    """The two parts of a reply; ``thinking`` is None if there was none."""

    thinking: str | None
    answer: str
    tokens: int | None = 0
    """Tokens of the thinking, including its closing mark; 0 if they were not counted, None if they cannot be."""


def split_reply(text: str, *, begun: bool = False, marks: Marks | None = None) -> SplitReply:
    """Separate the thinking from the answer. If the thinking never ends, there is no answer.

    ``begun``: the prompt opened the block. A reply that only closes one (its server's template opened it) is split
    there too.
    """
    stripped = text.lstrip()
    for one in (marks,) if marks else KNOWN:
        has_open = stripped.startswith(one.open)
        inside = stripped[len(one.open) :] if has_open else text
        before, closed, after = inside.partition(one.close)
        if has_open or (begun and marks):
            return SplitReply(before.strip(), after.strip() if closed else "")
        if closed and one.open not in before:
            return SplitReply(before.strip(), after.strip())
    return SplitReply(None, text)


@dataclass(frozen=True)
class ThinkingLimit:
    """How many tokens of a reply may be thinking, and how many are left for the answer after it."""

    marks: Marks
    begun: bool
    """Whether the prompt opened the block."""
    tokens: int
    """Maximum number of thinking tokens, including those that end it."""
    answer_tokens: int
    cut: tuple[int, ...]
    """Tokens that are inserted to end the thinking."""


class ThinkingCount:
    """Follows a reply token by token, and ends its thinking when that has used up its tokens."""

    def __init__(self, limit: ThinkingLimit, decode: Callable[[Sequence[int]], str]) -> None:
        """``decode`` keeps special tokens, because a mark may be one."""
        self._limit, self._decode = limit, decode
        self._ids: list[int] = []
        self._answer_from: int | None = None
        self._is_thinking = limit.begun
        self._to_write: list[int] = []
        self.was_cut = False
        self._cut_where_due()

    @property
    def is_full(self) -> bool:
        """Whether the answer has all of its tokens."""
        return self._answer_from is not None and len(self._ids) - self._answer_from >= self._limit.answer_tokens

    @property
    def is_over(self) -> bool:
        """Whether the reply has come to its answer, or never began with thinking."""
        return self._answer_from is not None

    @property
    def is_cutting(self) -> bool:
        """Whether the next token of the reply is one that ends its thinking."""
        return bool(self._to_write)

    def written(self) -> int | None:
        """Return the next token of the text that ends the thinking; None if the model chooses the next token."""
        return self._to_write.pop(0) if self._to_write else None

    def add(self, token: int) -> None:
        self._ids.append(token)
        marks = self._limit.marks
        if self._answer_from is not None:
            return
        if not self._is_thinking:
            begun = self._decode(self._ids).lstrip()
            self._is_thinking = begun.startswith(marks.open)
            if not self._is_thinking:
                self._answer_from = None if marks.open.startswith(begun) else 0
                return
        is_over = marks.close in self._decode(self._ids[-4 * len(marks.close) :])
        if not self._to_write if self.was_cut else is_over:
            self._answer_from = len(self._ids)
        else:
            self._cut_where_due()

    def _cut_where_due(self) -> None:
        limit = self._limit
        if self._is_thinking and not self.was_cut and len(self._ids) + len(limit.cut) >= limit.tokens:
            self.was_cut, self._to_write = True, list(limit.cut)


class ThinkingFilter:
    """Removes the thinking from a streamed reply for display; the complete reply is split at the end."""

    def __init__(self) -> None:
        self._text = ""
        self._state = "start"
        self._marks = KNOWN[0]

    def add(self, piece: str) -> str:
        """Add a piece and return the part of it that belongs to the answer."""
        return "".join(self._steps(piece))

    def end(self) -> str:
        """Return text that was held back because it could have been the start of a mark."""
        held = self._text if self._state == "start" else ""
        self._text = ""
        return held

    def _steps(self, piece: str) -> Iterator[str]:
        if self._state == "answer":
            yield piece
            return
        self._text += piece
        if self._state == "start":
            begun = self._text.lstrip()
            found = next((marks for marks in KNOWN if begun.startswith(marks.open)), None)
            if found:
                self._state, self._marks = "thinking", found
            elif not any(marks.open.startswith(begun) for marks in KNOWN):
                self._state, held, self._text = "answer", self._text, ""
                yield held
                return
        if self._state == "thinking" and self._marks.close in self._text:
            after = self._text.partition(self._marks.close)[2].lstrip()
            if after:
                self._state, self._text = "answer", ""
                yield after
