"""The tokenizer in a GGUF file, with the interface of a transformers tokenizer that prompts need."""

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llmjobs.engines.chat_template import BoundTemplate
from llmjobs.engines.llama_cpp.gguf import Header
from llmjobs.engines.llama_cpp.library import library
from llmjobs.errors import ModelError

_CONTROL, _USER_DEFINED = 3, 4
"""Values of ``tokenizer.ggml.token_type``: tokens that text may not contain, and whole words in the vocabulary."""
TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token outside the plain vocabulary; ``special`` ones control the model and are left out of replies."""

    content: str
    special: bool

    def __str__(self) -> str:
        return self.content


class GgufTokenizer:
    """Encodes and decodes with llama.cpp's code.

    BOS and EOS are added if the file says so. A BOS that the file names but does not add is ignored: Qwen's files name
    one that the model never saw at the beginning of a text.
    """

    def __init__(self, header: Header, vocab: Any, who: str) -> None:
        """``vocab`` belongs to a loaded model that must outlive this; ``who`` begins error messages."""
        self._api, self._vocab = library(), vocab
        self._metadata = header.metadata
        self._texts: Sequence[str] = header.metadata["tokenizer.ggml.tokens"]
        self._kinds: Sequence[int] = header.metadata.get("tokenizer.ggml.token_type") or ()
        self.add_bos_token = bool(self._api.llama_vocab_get_add_bos(vocab))
        bos = self._api.llama_vocab_bos(vocab)
        self.bos_token_id: int | None = bos if self.add_bos_token and bos >= 0 else None
        self.eos_token_id = self._known(self._api.llama_vocab_eos(vocab))
        self.pad_token_id = self._known(self._api.llama_vocab_pad(vocab))
        self.chat_template: Any = self._templates()
        self.apply_chat_template = BoundTemplate(self, who)

    def __call__(self, text: Any, *, add_special_tokens: bool = True, **_: Any) -> Mapping[str, Any]:
        """Encode one text or several; marks of special tokens in a text become these tokens, as in transformers."""
        if isinstance(text, str):
            return {"input_ids": self._encode(text, add_special_tokens)}
        return {"input_ids": [self._encode(one, add_special_tokens) for one in text]}

    def decode(self, token_ids: Any, *, skip_special_tokens: bool = False, **_: Any) -> str:
        """Text of tokens; invalid UTF-8 becomes U+FFFD."""
        ids = [int(one) for one in ([token_ids] if isinstance(token_ids, int) else token_ids)]
        if not ids:
            return ""
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        room = 16 * len(ids) + 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = self._api.llama_detokenize(
                self._vocab, tokens, len(ids), buffer, room, False, not skip_special_tokens
            )
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", "replace")
            room = -count

    def get_vocab(self) -> Mapping[str, int]:
        """All tokens as in the file (``Ġ`` or ``▁`` for a blank)."""
        return {text: at for at, text in enumerate(self._texts)}

    def get_chat_template(self) -> str:
        """The template for writing messages."""
        found = self.chat_template
        return str(found.get("default") or next(iter(found.values()))) if isinstance(found, dict) else str(found or "")

    @cached_property
    def added_tokens_decoder(self) -> Mapping[int, AddedToken]:
        """Control tokens and added words by id."""
        return {
            at: AddedToken(self._texts[at], kind == _CONTROL)
            for at, kind in enumerate(self._kinds)
            if kind in (_CONTROL, _USER_DEFINED)
        }

    @property
    def all_special_tokens(self) -> Sequence[str]:
        """Texts of the control tokens."""
        return [str(token) for token in self.added_tokens_decoder.values() if token.special]

    @property
    def special_tokens_map(self) -> Mapping[str, str]:
        """Texts of BOS, EOS, … by name, for chat templates; includes BOS even if the file does not add it."""
        found = {}
        for name in ("bos", "eos", "unk", "pad"):
            key = {"unk": "unknown", "pad": "padding"}.get(name, name)
            at = self._metadata.get(f"tokenizer.ggml.{key}_token_id")
            if isinstance(at, int) and 0 <= at < len(self._texts):
                found[f"{name}_token"] = self._texts[at]
        return found

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """All tokens that end a text or a turn, according to llama.cpp."""
        return frozenset(at for at in range(len(self._texts)) if self._api.llama_vocab_is_eog(self._vocab, at))

    def _encode(self, text: str, add_special: bool) -> list[int]:
        data = text.encode("utf-8", "surrogatepass")
        room = len(data) + 8
        tokens = (ctypes.c_int32 * room)()
        count = self._api.llama_tokenize(self._vocab, data, len(data), tokens, room, add_special, True)
        if count < 0:
            raise ModelError(f"a text of {len(data):,} bytes cannot be tokenized by llama.cpp")
        return list(tokens[:count])

    def _templates(self) -> Any:
        """One template, or several by name."""
        named: dict[str, str] = {}
        for key, value in self._metadata.items():
            if key == TEMPLATE and value:
                named["default"] = str(value)
            elif key.startswith(f"{TEMPLATE}.") and value:
                named[key.removeprefix(f"{TEMPLATE}.")] = str(value)
        return named.get("default") if set(named) <= {"default"} else named

    def _known(self, token: int) -> int | None:
        return int(token) if token >= 0 else None


def check_same_tokens(who: str, texts: Iterable[str], own: Any, other: Any) -> None:
    """Compare the file's tokenizer with that of the original model.

    Raises:
        ModelError: the tokens of a text differ; the message shows both.

    """
    for text in texts:
        here = list(own(text, add_special_tokens=True)["input_ids"])
        there = list(other(text, add_special_tokens=True)["input_ids"])
        if here != there:
            at = next((i for i, pair in enumerate(zip(here, there, strict=False)) if pair[0] != pair[1]), 0)
            raise ModelError(
                f"{who}: the tokens of {text[:40]!r} differ from those of the original tokenizer from position"
                f" {at} on: "
                f"{here[at : at + 6]} and {there[at : at + 6]}; use a newer file of this model"
            )
