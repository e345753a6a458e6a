"""A benchmark from the user's own file, without code: the manifest names its columns.

With ``choices`` it is multiple choice, either by letter (``prompt: letters``) or by the options' texts (``prompt:
texts``). Without, the model generates a short answer, which is compared after normalisation (:func:`normalise`). The
first ``num_fewshot`` rows of the file are the worked examples; the others are asked.
"""

import json
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

from llmjobs.benchmarks.base import Doc, Example, Generation, Grade, Options, OutputType, Row, Shots, T, letter
from llmjobs.benchmarks.multiple_choice import MultipleChoice

MAX_OPTIONS = 26
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "“”‘’´…–—")


@dataclass(frozen=True)
class Columns:
    """The role of each column of the file."""

    question: str
    answer: str
    choices: tuple[str, ...] | str | None = None
    """Columns of the options, or one column with a list; None for short answers."""


class Custom(MultipleChoice):
    """A benchmark from a file; :func:`custom_class` binds it to the file's columns."""

    name = "custom"
    title = "Your own"
    source = "your file"
    prompts = ("letters", "texts")
    max_fewshot = 100
    test_rows = 0
    shares_file = True
    normalised = True
    columns: ClassVar[Columns] = Columns("question", "answer")
    num_fewshot: ClassVar[int] = 0

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        if options.prompt not in self.prompts:
            raise ValueError(f"prompt: {options.prompt!r} is not one of {', '.join(self.prompts)}")

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Pick the named columns; the answer becomes an index or a list of accepted texts."""
        question = _text(_cell(raw, "question", cls.columns.question), "question")
        answer = _cell(raw, "answer", cls.columns.answer)
        if cls.columns.choices is None:
            accepted = answer if isinstance(answer, list) else [answer]
            return {"question": question, "answers": [_text(one, "answer") for one in accepted]}
        choices = _choices(raw, cls.columns.choices)
        return {"question": question, "choices": choices, "answer": _gold(answer, choices)}

    @classmethod
    def part(cls, rows: list[T], split: str) -> list[T]:
        """Use the first rows as shots and the others as questions."""
        return rows[: cls.num_fewshot] if split == "fewshot" else rows[cls.num_fewshot :]

    def output_type(self, subject: str) -> OutputType:
        """Multiple choice if there are options, else generation."""
        return "generate_until" if self.columns.choices is None else "loglikelihood"

    def doc(self, row: Row, doc_id: int, subject: str) -> Doc:
        choices = tuple(row.get("choices", ()))
        return Doc(
            doc_id=doc_id,
            subject=subject,
            question=row["question"],
            choices=choices,
            gold=letter(row["answer"]) if choices else row["answers"][0],
            questions=(self._prompt(row),),
            continuations=tuple(f" {target}" for target in self._targets(row)),
            golds=() if choices else tuple(row["answers"]),
        )

    def shots(self, rows: Sequence[Row], subject: str) -> Shots:
        examples = []
        for row in rows[: self.options.num_fewshot]:
            target = self._targets(row)[row["answer"]] if "choices" in row else row["answers"][0]
            examples.append(Example(self._prompt(row), f" {target}"))
        return Shots(examples=tuple(examples))

    def _targets(self, row: Row) -> list[str]:
        choices: list[str] = row.get("choices", [])
        return choices if self.options.prompt == "texts" else [letter(at) for at in range(len(choices))]

    def _prompt(self, row: Row) -> str:
        shown = "".join(f"\n{letter(at)}. {choice}" for at, choice in enumerate(row.get("choices", [])))
        return f"Question: {row['question']}{shown if self.options.prompt == 'letters' else ''}\nAnswer:"

    def grade(self, doc: Doc, loglikelihoods: Sequence[float], is_greedy: Sequence[bool] = ()) -> Grade:
        """Compare the options; ``acc_norm`` only differs from ``acc`` if their texts are compared."""
        judged = super().grade(doc, loglikelihoods, is_greedy)
        kept = {k: v for k, v in judged.metrics.items() if k == "acc" or self.options.prompt == "texts"}
        return Grade(judged.prediction, judged.correct, kept)

    def generation(self, doc: Doc) -> Generation:
        """Generate one short line."""
        return Generation(stop=("\n",), max_new_tokens=32)

    def grade_text(self, doc: Doc, text: str) -> Grade:
        """Compare the first line with the accepted answers, both normalised. An empty line counts as unreadable."""
        said = text.strip().split("\n")[0].strip()
        right = bool(said) and normalise(said) in {normalise(gold) for gold in doc.golds}
        return Grade(said or None, right, {"exact_match": float(right)})


def custom_class(name: str, columns: Columns, num_fewshot: int) -> type[Custom]:
    """Return a class for one file's benchmark."""

    class Bound(Custom):
        pass

    Bound.name, Bound.columns, Bound.num_fewshot = name, columns, num_fewshot
    Bound.primary_metric = "exact_match" if columns.choices is None else "acc"
    return Bound


def normalise(text: str) -> str:
    """Make answers comparable: Unicode NFKC, lower case, no punctuation, no a, an, the, single blanks (as SQuAD does).

    A text that would become empty (``the``, ``+``) is only lowercased.
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    short = " ".join(_ARTICLES.sub(" ", plain.translate(_PUNCTUATION)).split())
    return short or plain.strip()


def _cell(raw: Row, role: str, column: str) -> Any:
    if column in raw:
        return raw[column]
    near = get_close_matches(column, map(str, raw), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{role}: there is no column {column!r} among {', '.join(map(str, list(raw)[:20]))}{hint}; name one of these"
    )


def _text(value: Any, role: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise ValueError(f"{role}: must be text, not {str(value)[:40]!r}")
    return str(value).strip()


def _choices(raw: Row, columns: tuple[str, ...] | str) -> list[str]:
    """Read the options of a row; empty ones at the end are dropped."""
    if isinstance(columns, str):
        values = _cell(raw, "choices", columns)
        if isinstance(values, str):
            try:
                values = json.loads(values)
            except ValueError:
                raise ValueError(f"choices: column {columns!r} does not contain a JSON list: {values[:40]!r}") from None
        if isinstance(values, Mapping):
            values = values.get("text")
        if not isinstance(values, list):
            raise ValueError(f"choices: column {columns!r} does not contain a list")
    else:
        values = [_cell(raw, "choices", column) for column in columns]
    while values and values[-1] in ("", None):
        values = values[:-1]
    if not 2 <= len(values) <= MAX_OPTIONS:
        raise ValueError(f"choices: {len(values)} options, but 2 to {MAX_OPTIONS} are allowed")
    return [_text(value, "choices") for value in values]


def _gold(answer: Any, choices: list[str]) -> int:
    """Read the right option from a letter, an index from 0, or its text.

    An answer that could mean two options is refused.
    """
    text = _text(answer, "answer")
    found = {at for at, choice in enumerate(choices) if choice == text and isinstance(answer, str)}
    found |= {at for at in range(len(choices)) if text == letter(at)}
    if text.isdecimal() and int(text) < len(choices):
        found.add(int(text))
    if len(found) != 1:
        what = (
            "could be more than one option"
            if found
            else f"is not a letter, an index from 0 or the text of one of {len(choices)} options"
        )
        raise ValueError(f"answer: {text[:40]!r} {what}; write A to {letter(len(choices) - 1)}")
    return found.pop()
