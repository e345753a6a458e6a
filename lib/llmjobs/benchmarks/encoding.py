"""From texts to tokens, the way lm-eval does it. No torch: the tokenizer is passed in.

Context and continuation are encoded together and split at the context's own length, so that the border falls where the
tokenizer puts it; white space at the end of a context goes to the continuation. What the tokenizer adds in front by
default (BOS) is added once: not where the text begins with it already, and nothing is added behind.

Prompts of a unit share their shots, options share their question. Each shared part is encoded once, where that cannot
change a token: between a letter and a blank with a letter behind it, for tokenizers without a token that reaches over
such a place.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any, Protocol

Tokens = tuple[int, ...]
PROBED = 2
"""Docs of a unit that are encoded whole as well, to compare."""
_REACHES_OVER = re.compile(r"[A-Za-z][ \u0120\u2581]+[A-Za-z]|[A-Za-z][ \u0120\u2581]+$")
"""In a vocabulary a blank is itself, ``Ġ`` (byte-level) or ``▁`` (SentencePiece)."""


class Tokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    @property
    def bos_token(self) -> Any:
        """Text of the beginning-of-sequence token, or None."""

    def __call__(self, text: Any, *, add_special_tokens: bool) -> Mapping[str, Any]:
        """Encode one text or several; ``input_ids`` holds the tokens."""

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

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Ask the tokenizer what it adds in front, and whether its texts may be encoded in parts."""
        self.tokenizer = tokenizer
        with_special = list(tokenizer("a", add_special_tokens=True)["input_ids"])
        plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        at = next((i for i in range(len(with_special)) if with_special[i : i + len(plain)] == plain), 0)
        self.prefix: Tokens = tuple(with_special[:at])
        self.bos = "added" if self.prefix else "none"
        self.in_parts = not any(_REACHES_OVER.search(token) for token in tokenizer.get_vocab())

    def encode(self, docs: Iterable[Sequence[Text]]) -> list[list[tuple[Tokens, Tokens]]]:
        """Encode every text of every doc into context and continuation tokens."""
        shifted = [[_shift_space(text) if text.continuation else text for text in texts] for texts in docs]
        if self.in_parts:
            self.in_parts = self._whole(shifted[:PROBED]) == self._parts(shifted[:PROBED])
        tokens = self._parts(shifted) if self.in_parts else self._whole(shifted)

        def split(text: Text) -> tuple[Tokens, Tokens]:
            begin = self._begin(text.context)
            context = tokens[text.context]
            return begin + context, tokens[text.context + text.continuation][len(context) :]

        return [[split(text) for text in texts] for texts in shifted]

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

    def _begin(self, text: str) -> Tokens:
        bos = self.tokenizer.bos_token
        if bos and text.startswith(str(bos)):
            self.bos = "in the text"
            return ()
        return self.prefix


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
