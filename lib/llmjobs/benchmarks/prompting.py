"""Turn docs and shots into texts and tokens, as lm-eval does. The tokenizer is passed in, so no torch is needed."""

import datetime
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from typing import Any, Protocol

from llmjobs.benchmarks.base import Benchmark, Doc, Generation, Shots
from llmjobs.benchmarks.scoring_requests import Prompt, Request, common_length
from llmjobs.errors import ModelError, printable
from llmjobs.prompt_format import ChatMessage, PromptFormat, ServerFormat, Thinking, is_template_error
from llmjobs.thinking import DEFAULT_BUDGET

Tokens = tuple[int, ...]
PROBED = 2
"""Number of a unit's docs that are also encoded in one piece, to compare."""
_REACHES_OVER = re.compile(r"[A-Za-z][ \u0120\u2581]+[A-Za-z]|[A-Za-z][ \u0120\u2581]+$")
"""How a vocabulary writes a blank: as itself, ``Ġ`` (byte-level) or ``▁`` (SentencePiece)."""


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    def __call__(self, text: Any, *, add_special_tokens: bool) -> Mapping[str, Any]:
        """Encode one or several texts; ``input_ids`` holds the tokens."""

    def decode(self, token_ids: Any) -> Any: ...

    def get_vocab(self) -> Mapping[str, int]:
        """Return all tokens as text."""

    def apply_chat_template(self, conversation: Any, *, tokenize: Any, add_generation_prompt: Any) -> Any:
        """Write messages in the model's format."""


@dataclass(frozen=True)
class Text:
    """One prompt as text: a context and the continuation to score (empty for generation)."""

    context: str
    continuation: str


class Encoder:
    """Encodes pairs of context and continuation; splits the tokens after the last one that they have in common."""

    def __init__(self, tokenizer: Tokenizer, prompt_format: PromptFormat | None = None) -> None:
        self.tokenizer = tokenizer
        self.format = prompt_format or PromptFormat(tokenizer, uses_template=False)
        self.in_parts = not any(_REACHES_OVER.search(token) for token in tokenizer.get_vocab())
        self.joined: list[bool] = []
        """For each doc of the last call: whether a token spans the border between context and continuation."""

    @property
    def bos(self) -> str:
        """``added``, ``in the text`` (written by a chat template), or ``none``."""
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
        """Split each option's tokens; all options of one context are split at the same place."""
        contexts = [tokens[text.context] for text in texts]
        wholes = [tokens[text.context + text.continuation] for text in texts]
        ends = [common_length(context, whole) for context, whole in zip(contexts, wholes, strict=True)]
        if texts and len({text.context for text in texts}) == 1:
            ends = [min(ends)] * len(texts)
        # a continuation without any token is scored together with the token before it
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
        """Encode separately what all contexts share, what each context adds, and what each continuation adds."""
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
    """Return the last place between a letter and a blank that is followed by a letter; 0 if there is none."""
    at = text.rfind(" ", 1, len(text) - 1)
    while at > 0 and not (
        text[at - 1].isascii() and text[at - 1].isalpha() and text[at + 1].isascii() and text[at + 1].isalpha()
    ):
        at = text.rfind(" ", 1, at)
    return max(at, 0)


@dataclass(frozen=True)
class ChatStyle:
    """How a prompt is presented: as plain text, or as messages through the tokenizer's chat template."""

    chat_template: bool = False
    fewshot_as_turns: bool = True
    system: str | None = None


@dataclass(frozen=True)
class EncodedUnit:
    """Everything that a model is asked about a list of docs, in their order.

    Either ``requests`` is filled (log-likelihood: one entry per continuation), or ``contexts`` and ``generations``,
    whose ``max_new_tokens`` fit after their contexts. Without a tokenizer, ``contexts`` are empty and ``prompts`` are
    there instead.
    """

    requests: tuple[tuple[Request, ...], ...]
    contexts: tuple[Tokens, ...]
    generations: tuple[Generation, ...]
    shots_used: tuple[int, ...]
    """How many shots each doc keeps after dropping those that do not fit."""
    truncated: tuple[bool, ...]
    """Docs that do not fit even without shots, so their beginning is cut off."""
    joined: tuple[bool, ...]
    """Docs where a token spans the border between prompt and answer."""
    shortened: tuple[bool, ...]
    """Docs that leave less room for a reply than the benchmark asks for."""
    bos: str
    """``added`` by the tokenizer's default, already ``in the text`` (a chat template), or ``none``."""
    system: str
    """``none``, ``system`` (a separate message) or ``merged`` (the template has no system role)."""
    format: PromptFormat | ServerFormat
    """How prompts are written: thinking, date, end-of-turn tokens."""
    prompts: tuple[Prompt, ...] = ()

    def digest(self) -> str:
        """Return sixteen hex digits that identify every token that is asked and how replies are generated."""
        digest = hashlib.sha256()
        for options in self.requests:
            digest.update(_bytes((r.prompt, r.ending) if r.prompt else (r.context, r.continuation) for r in options))
        for prompt in self.prompts:
            digest.update(_bytes((prompt,)))
        for context, how in zip(self.contexts, self.generations, strict=True):
            digest.update(_bytes((context, how)))
        if self.generations and self.format.is_thinking and isinstance(self.format, PromptFormat):
            digest.update(_bytes(self.format.cut_tokens))  # thinking that used up its tokens is ended with these
        return digest.hexdigest()[:16]


def _bytes(values: Iterable[object]) -> bytes:
    return repr(tuple(values)).encode()


def encode_unit(
    benchmark: Benchmark,
    docs: Sequence[Doc],
    shots: Shots,
    tokenizer: Tokenizer | None,
    *,
    max_length: int,
    chat_template: bool = False,
    fewshot_as_turns: bool = True,
    system: str | None = None,
    thinking: Thinking | None = "off",
    date: datetime.date | None = None,
    who: str = "the model",
) -> EncodedUnit:
    """Encode all docs of one subject, each with as many shots as fit into ``max_length`` tokens.

    ``thinking`` and ``date`` are for the chat template (see ``prompt_format``); ``who`` begins error messages.
    Without a ``tokenizer`` the prompts stay text or messages, with all of their shots.

    Raises:
        ModelError: a chat template is requested and there is none, or options would be scored inside the thinking.

    """
    style = ChatStyle(chat_template, fewshot_as_turns, system)
    if tokenizer is None:
        return _unencoded_unit(benchmark, docs, shots, style, thinking)
    form = PromptFormat(tokenizer, who=who, uses_template=chat_template, thinking=thinking, date=date)
    writer = PromptWriter(benchmark, shots, tokenizer, style, form)
    encoder = Encoder(tokenizer, form)
    generated = bool(docs) and benchmark.output_type(docs[0].subject) == "generate_until"
    if not generated:
        form.check_scoring(benchmark.name)
    generations = [_with_thinking(benchmark.generation(doc), form) if generated else None for doc in docs]
    rooms = [_room(max_length, generation) for generation in generations]
    joined = [False] * len(docs)
    pairs: dict[int, list[tuple[Tokens, Tokens]]] = {}
    used = [len(shots.examples)] * len(docs)
    pending = list(range(len(docs)))
    while pending:
        texts = [writer.write(docs[at], used[at], generated) for at in pending]
        pairs.update(zip(pending, encoder.encode(texts), strict=True))
        for at, is_joined in zip(pending, encoder.joined, strict=True):
            joined[at] = is_joined
        pending = [at for at in pending if used[at] and _length(pairs[at]) > rooms[at]]
        for at in pending:
            used[at] -= 1
    contexts = [pairs[at][0][0][-rooms[at] :] for at in range(len(docs))] if generated else []
    kept = [] if generated else [pairs[at] for at in range(len(docs))]
    fitted = [
        replace(g, max_new_tokens=min(g.max_new_tokens, max_length - len(context)))
        for g, context in zip(filter(None, generations), contexts, strict=generated)
    ]
    asked = [g.max_new_tokens for g in generations if g]
    return EncodedUnit(
        requests=tuple(tuple(Request(c, t) for c, t in options) for options in kept),
        contexts=tuple(contexts),
        generations=tuple(fitted),
        shots_used=tuple(used),
        truncated=tuple(_length(pairs[at]) > rooms[at] for at in range(len(docs))),
        joined=tuple(joined),
        shortened=tuple(g.max_new_tokens < most for g, most in zip(fitted, asked, strict=True)) or (False,) * len(docs),
        bos=encoder.bos,
        system=writer.system_role,
        format=form,
    )


def _unencoded_unit(
    benchmark: Benchmark, docs: Sequence[Doc], shots: Shots, style: ChatStyle, thinking: Thinking | None
) -> EncodedUnit:
    """The prompts as text or messages, for an engine whose server makes the tokens."""
    form = ServerFormat(uses_template=style.chat_template, thinking=thinking)
    writer = PromptWriter(benchmark, shots, None, style, form)
    count, generated = len(shots.examples), bool(docs) and benchmark.output_type(docs[0].subject) == "generate_until"
    written = [writer.prompts(doc, count, generated) for doc in docs]
    requests = [tuple(Request((), (), prompt, ending) for prompt, ending in options) for options in written]
    return EncodedUnit(
        requests=() if generated else tuple(requests),
        contexts=((),) * len(docs) if generated else (),
        generations=tuple(_with_thinking(benchmark.generation(doc), form) for doc in docs) if generated else (),
        shots_used=(count,) * len(docs),
        truncated=(False,) * len(docs),
        joined=(False,) * len(docs),
        shortened=(False,) * len(docs),
        bos=form.bos,
        system=writer.system_role,
        format=form,
        prompts=tuple(options[0][0] for options in written) if generated else (),
    )


def _with_thinking(generation: Generation, form: PromptFormat | ServerFormat) -> Generation:
    """Add room for the thinking.

    Nothing may stop generation earlier, because the end of the answer is searched in the whole reply.
    """
    if not form.is_thinking:
        return replace(generation, stop=(*generation.stop, *form.ends[1]))
    budget = form.asked if isinstance(form.asked, int) else DEFAULT_BUDGET
    most = max(budget, len(form.cut_tokens)) if isinstance(form, PromptFormat) else budget
    return replace(generation, stop=(), max_new_tokens=generation.max_new_tokens + most)


def _length(options: Sequence[tuple[Tokens, Tokens]]) -> int:
    return max(len(context) + len(continuation) for context, continuation in options)


def _room(max_length: int, generation: Generation | None) -> int:
    """Tokens available for context and continuation; the last token of a continuation is never read.

    A reply gets its full length, but never more than half of ``max_length``.
    """
    if generation is None:
        return max_length + 1
    return max(max_length - generation.max_new_tokens, max_length - max_length // 2)


class PromptWriter:
    """Writes a doc and its shots as text."""

    def __init__(
        self,
        benchmark: Benchmark,
        shots: Shots,
        tokenizer: Tokenizer | None,
        style: ChatStyle,
        prompt_format: PromptFormat | ServerFormat | None = None,
    ) -> None:
        self.delimiter = benchmark.target_delimiter
        self.shots = shots
        self.style = style
        self.format = prompt_format or PromptFormat(tokenizer, uses_template=style.chat_template)
        self.system_text = _join(style.system or "", shots.description, shots.delimiter)
        self.system_role = "none"
        if style.chat_template and self.system_text:
            self.system_role = "system" if self.format.takes_system else "merged"

    def write(self, doc: Doc, count: int, generated: bool) -> list[Text]:
        """Write one text per continuation, or one without continuation for generation."""
        if generated:
            return [Text(self._context(doc.questions[0], count), "")]
        contexts = [self._context(question, count) for question in doc.questions]
        if len(contexts) == 1:
            contexts *= len(doc.continuations)
        return [Text(context, text) for context, text in zip(contexts, self._continuations(doc), strict=True)]

    def prompts(self, doc: Doc, count: int, generated: bool) -> list[tuple[Prompt, str]]:
        """As :meth:`write`, but with messages if a chat template will format them."""
        if not self.style.chat_template:
            texts = self.write(doc, count, generated)
            shifted = texts if generated else [_shift_space(text) for text in texts]
            return [(Prompt(text.context), text.continuation) for text in shifted]
        messages = [self._with_system(question, count) for question in doc.questions]
        asked = [Prompt(messages=tuple((one["role"], one["content"]) for one in found)) for found in messages]
        if generated:
            return [(asked[0], "")]
        endings = self._continuations(doc)
        return list(zip(asked * len(endings) if len(asked) == 1 else asked, endings, strict=True))

    def _continuations(self, doc: Doc) -> tuple[str, ...]:
        if self.style.chat_template:
            return tuple(text.removeprefix(self.delimiter) for text in doc.continuations)
        return doc.continuations

    def _with_system(self, question: str, count: int) -> list[ChatMessage]:
        return self.format.with_system(self.system_text, self._messages(question, count), self.shots.delimiter)

    def _context(self, question: str, count: int) -> str:
        if not self.style.chat_template:
            return _join(self.style.system or "", self.shots.render(count) + question, self.shots.delimiter)
        assert isinstance(self.format, PromptFormat)
        messages = self._with_system(question, count)
        try:
            return self.format.render(messages)
        except Exception as error:
            if not is_template_error(error):
                raise
            raise ModelError(
                f"{self.format.who}: its chat template refuses these messages: {printable(str(error))};"
                " try fewshot_as_turns: false, or chat_template: false"
            ) from None

    def _messages(self, question: str, count: int) -> list[ChatMessage]:
        examples = self.shots.examples[:count]
        if not self.style.fewshot_as_turns:
            shown = "".join(e.text + e.target + self.shots.delimiter for e in examples)
            return [{"role": "user", "content": shown + question}]
        turns: list[ChatMessage] = []
        for example in examples:
            turns.append({"role": "user", "content": example.text})
            turns.append({"role": "assistant", "content": example.target.removeprefix(self.delimiter)})
        return [*turns, {"role": "user", "content": question}]


def _join(before: str, after: str, delimiter: str) -> str:
    """Join two texts by ``delimiter``, unless one is empty or there is already white space between them."""
    if not before or not after or before[-1].isspace() or after[0].isspace():
        return before + after
    return before + delimiter + after
