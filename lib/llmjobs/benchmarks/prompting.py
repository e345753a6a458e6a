"""From docs and shots to texts and tokens, the way lm-eval does it. No torch: the tokenizer is passed in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmjobs.benchmarks.base import Benchmark, Doc, Generation, Shots
from llmjobs.benchmarks.encoding import Encoder, Text, Tokenizer, Tokens
from llmjobs.scoring.requests import Request

Message = dict[str, str]


@dataclass(frozen=True)
class ChatStyle:
    """How a prompt is put to the model: plain text, or messages through the tokenizer's chat template."""

    chat_template: bool = False
    fewshot_as_turns: bool = True
    system: str | None = None


@dataclass(frozen=True)
class EncodedUnit:
    """Everything that a model is asked for a list of docs, in their order.

    Either ``requests`` is filled (log-likelihood: one entry a continuation) or ``contexts`` and ``generations``,
    whose ``max_new_tokens`` fit behind their contexts.
    """

    requests: tuple[tuple[Request, ...], ...]
    contexts: tuple[Tokens, ...]
    generations: tuple[Generation, ...]
    shots_used: tuple[int, ...]
    """Shots left for each doc after dropping those that do not fit."""
    truncated: tuple[bool, ...]
    """Docs that do not fit even without shots: their beginning is cut off."""
    bos: str
    """``added`` by the tokenizer's own default, already ``in the text`` (a chat template), or ``none``."""
    system: str
    """``none``, ``system`` (a message of its own) or ``merged`` (the template has no system role)."""


def encode_unit(
    benchmark: Benchmark,
    docs: Sequence[Doc],
    shots: Shots,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    chat_template: bool = False,
    fewshot_as_turns: bool = True,
    system: str | None = None,
) -> EncodedUnit:
    """Encode all docs of one subject, each with as many shots as fit into ``max_length`` tokens.

    Raises:
        ValueError: the tokenizer has no chat template though one is asked for.

    """
    writer = PromptWriter(benchmark, shots, tokenizer, ChatStyle(chat_template, fewshot_as_turns, system))
    encoder = Encoder(tokenizer)
    generated = bool(docs) and benchmark.output_type(docs[0].subject) == "generate_until"
    generations = [benchmark.generation(doc) if generated else None for doc in docs]
    rooms = [_room(max_length, generation) for generation in generations]
    pairs: dict[int, list[tuple[Tokens, Tokens]]] = {}
    used = [len(shots.examples)] * len(docs)
    pending = list(range(len(docs)))
    while pending:
        texts = [writer.write(docs[at], used[at], generated) for at in pending]
        pairs.update(zip(pending, encoder.encode(texts), strict=True))
        pending = [at for at in pending if used[at] and _length(pairs[at]) > rooms[at]]
        for at in pending:
            used[at] -= 1
    contexts = [pairs[at][0][0][-rooms[at] :] for at in range(len(docs))] if generated else []
    kept = [] if generated else [pairs[at] for at in range(len(docs))]
    return EncodedUnit(
        requests=tuple(tuple(Request(c, t) for c, t in options) for options in kept),
        contexts=tuple(contexts),
        generations=tuple(
            replace(g, max_new_tokens=min(g.max_new_tokens, max_length - len(context)))
            for g, context in zip(filter(None, generations), contexts, strict=True)
        ),
        shots_used=tuple(used),
        truncated=tuple(_length(pairs[at]) > rooms[at] for at in range(len(docs))),
        bos=encoder.bos,
        system=writer.system_role,
    )


def _length(options: Sequence[tuple[Tokens, Tokens]]) -> int:
    return max(len(context) + len(continuation) for context, continuation in options)


def _room(max_length: int, generation: Generation | None) -> int:
    """Tokens that context and continuation may have; the last token of a continuation is never read.

    A reply is left its whole length, but never more than half of ``max_length``.
    """
    if generation is None:
        return max_length + 1
    return max(max_length - generation.max_new_tokens, max_length - max_length // 2)


class PromptWriter:
    """Writes a doc with its shots as text."""

    def __init__(self, benchmark: Benchmark, shots: Shots, tokenizer: Tokenizer, style: ChatStyle) -> None:
        """Take what is the same for all docs."""
        self.delimiter = benchmark.target_delimiter
        self.shots = shots
        self.tokenizer = tokenizer
        self.style = style
        self.system_text = _join(style.system or "", shots.description, shots.delimiter)
        self.system_role = "none" if not (style.chat_template and self.system_text) else "system"

    def write(self, doc: Doc, count: int, generated: bool) -> list[Text]:
        """Write one text a continuation; one without continuation for generation."""
        if generated:
            return [Text(self._context(doc.questions[0], count), "")]
        contexts = [self._context(question, count) for question in doc.questions]
        if len(contexts) == 1:
            contexts *= len(doc.continuations)
        continuations = doc.continuations
        if self.style.chat_template:
            continuations = tuple(text.removeprefix(self.delimiter) for text in continuations)
        return [Text(context, text) for context, text in zip(contexts, continuations, strict=True)]

    def _context(self, question: str, count: int) -> str:
        if not self.style.chat_template:
            return _join(self.style.system or "", self.shots.render(count) + question, self.shots.delimiter)
        return self._through_template(self._messages(question, count))

    def _messages(self, question: str, count: int) -> list[Message]:
        examples = self.shots.examples[:count]
        if not self.style.fewshot_as_turns:
            shown = "".join(e.text + e.target + self.shots.delimiter for e in examples)
            return [{"role": "user", "content": shown + question}]
        turns: list[Message] = []
        for example in examples:
            turns.append({"role": "user", "content": example.text})
            turns.append({"role": "assistant", "content": example.target.removeprefix(self.delimiter)})
        return [*turns, {"role": "user", "content": question}]

    def _through_template(self, messages: list[Message]) -> str:
        """Write messages; a template that refuses a system message gets its text before the first question."""
        if self.system_role == "system":
            try:
                return self._apply([{"role": "system", "content": self.system_text}, *messages])
            except Exception as error:
                if type(error).__module__.partition(".")[0] != "jinja2":
                    raise
                self.system_role = "merged"
        if self.system_role == "merged":
            first = _join(self.system_text, messages[0]["content"], self.shots.delimiter)
            messages = [messages[0] | {"content": first}, *messages[1:]]
        return self._apply(messages)

    def _apply(self, messages: list[Message]) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _join(before: str, after: str, delimiter: str) -> str:
    """Join two texts by ``delimiter``, unless one is empty or white space stands at the border."""
    if not before or not after or before[-1].isspace() or after[0].isspace():
        return before + after
    return before + delimiter + after
