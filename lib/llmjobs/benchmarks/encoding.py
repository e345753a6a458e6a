"""From texts to tokens, the way lm-eval does it. No torch: the tokenizer is passed in.

Context and continuation are encoded together and split at the context's own length, so that the border falls where the
tokenizer puts it; white space at the end of a context goes to the continuation. Where a tokenizer joins the end of the
context with the continuation (``: C`` as one token), the split is at the last token that the context and all options
have in common: what is scored is never empty, and begins at the same place for all options. BOS is there once (see
``prompt_format``), and nothing is added behind.

Prompts of a unit share their shots, options share their question. Each shared part is encoded once, where that cannot
change a token: between a letter and a blank with a letter behind it, for tokenizers without a token that reaches over
such a place.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any, Protocol

from llmjobs.prompt_format import PromptFormat
from llmjobs.scoring.requests import common_length

Tokens = tuple[int, ...]
PROBED = 2
"""Docs of a unit that are encoded whole as well, to compare."""
_REACHES_OVER = re.compile(r"[A-Za-z][ \u0120\u2581]+[A-Za-z]|[A-Za-z][ \u0120\u2581]+$")
"""In a vocabulary a blank is itself, ``Ġ`` (byte-level) or ``▁`` (SentencePiece)."""


class Tokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    def __call__(self, text: Any, *, add_special_tokens: bool) -> Mapping[str, Any]:
        """Encode one text or several; ``input_ids`` holds the tokens."""

    def decode(self, token_ids: Any) -> Any:
        """Text of tokens."""

    def get_vocab(self) -> Mapping[str, int]:
        """All tokens as text."""

    def apply_chat_template(self, conversation: Any, *, tokenize: Any, add_generation_prompt: Any) -> Any:
        """Write messages as the model expects them."""


@dataclass(frozen=True)
class Text:
    """One prompt as text: a context and the continuation to score (empty for generation)."""

    context: str
    continuation: str


class Encoder:
    """Encodes contexts with their continuations."""

    def __init__(self, tokenizer: Tokenizer, prompt_format: PromptFormat | None = None) -> None:
        """Ask the tokenizer whether its texts may be encoded in parts."""
        self.tokenizer = tokenizer
        self.format = prompt_format or PromptFormat(tokenizer, uses_template=False)
        self.in_parts = not any(_REACHES_OVER.search(token) for token in tokenizer.get_vocab())
        self.joined: list[bool] = []
        """For each doc that was encoded last: whether a token reaches over the border of context and continuation."""

    @property
    def bos(self) -> str:
        """``added``, ``in the text`` (a chat template wrote it), or ``none``."""
        return self.format.bos

    def encode(self, docs: Iterable[Sequence[Text]]) -> list[list[tuple[Tokens, Tokens]]]:
        """Encode every text of every doc into context and continuation tokens."""
        shifted = [[_shift_space(text) if text.continuation else text for text in texts] for texts in docs]
        if self.in_parts:
            self.in_parts = self._whole(shifted[:PROBED]) == self._parts(shifted[:PROBED])
        tokens = self._parts(shifted) if self.in_parts else self._whole(shifted)
        self.joined = []
        return [self._split(texts, tokens) for texts in shifted]

    def _split(self, texts: Sequence[Text], tokens: Mapping[str, Tokens]) -> list[tuple[Tokens, Tokens]]:
        """Split each option's tokens; options of one context all at the same place."""
        contexts = [tokens[text.context] for text in texts]
        wholes = [tokens[text.context + text.continuation] for text in texts]
        ends = [common_length(context, whole) for context, whole in zip(contexts, wholes, strict=True)]
        if texts and len({text.context for text in texts}) == 1:
            ends = [min(ends)] * len(texts)
        # a continuation of no token at all is scored with the token before it
        empty = [bool(t.continuation) and end == len(w) for t, w, end in zip(texts, wholes, ends, strict=True)]
        if any(empty):
            ends = [max(end - 1, 0) for end in ends]
        self.joined.append(any(end < len(context) for end, context in zip(ends, contexts, strict=True)))
        return [
            (self.format.begin(context) + whole[:end], whole[end:])
            for context, whole, end in zip(contexts, wholes, ends, strict=True)
        ]

    def _whole(self, docs: Sequence[Sequence[Text]]) -> dict[str, Tokens]:
        wanted = dict.fromkeys(t for texts in docs for x in texts for t in (x.context, x.context + x.continuation))
        return self._ask(wanted)

    def _parts(self, docs: Sequence[Sequence[Text]]) -> dict[str, Tokens]:
        """Encode what all contexts share, what each context adds, and what each continuation adds, one by one."""
        shared = _cut(commonprefix([x.context for texts in docs for x in texts]))
        parts: dict[str, tuple[str, ...]] = {}
        for text in (x for texts in docs for x in texts):
            own = max(_cut(text.context), shared)
            head = tuple(filter(None, (text.context[:shared], text.context[shared:own])))
            for whole in (text.context, text.context + text.continuation):
                parts[whole] = (*head, *filter(None, (whole[own:],)))
        known = self._ask(dict.fromkeys(part for pieces in parts.values() for part in pieces))
        return {whole: tuple(t for piece in pieces for t in known[piece]) for whole, pieces in parts.items()}

    def _ask(self, texts: Iterable[str]) -> dict[str, Tokens]:
        strings = list(texts)
        ids = self.tokenizer(strings, add_special_tokens=False)["input_ids"] if strings else []
        return {text: tuple(found) for text, found in zip(strings, ids, strict=True)}


def _shift_space(text: Text) -> Text:
    context = text.context.rstrip()
    return Text(context, text.context[len(context) :] + text.continuation)


def _cut(text: str) -> int:
    """Return the last place between a letter and a blank with a letter behind it; 0 if there is none."""
    at = text.rfind(" ", 1, len(text) - 1)
    while at > 0 and not (
        text[at - 1].isascii() and text[at - 1].isalpha() and text[at + 1].isascii() and text[at + 1].isalpha()
    ):
        at = text.rfind(" ", 1, at)
    return max(at, 0)
