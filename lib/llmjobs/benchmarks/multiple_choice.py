"""Multiple choice, by the log-likelihoods of the options or by a letter in a generated reply."""

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from llmjobs.benchmarks.base import Benchmark, Doc, Example, Grade, Row, Shots, argmax, letter


class MultipleChoice(Benchmark):
    """A benchmark whose answer is the option with the largest log-likelihood.

    ``acc`` uses the log-likelihood itself. If ``acc_norm`` is the primary metric, both are computed, and the prediction
    is the option with the largest log-likelihood per character (without the leading space), as in lm-eval.
    """

    normalised = False
    """Whether ``acc_norm`` is computed too."""

    def grade(self, doc: Doc, loglikelihoods: Sequence[float], is_greedy: Sequence[bool] = ()) -> Grade:
        """Compare the options; the first wins a tie."""
        best = letter(argmax(loglikelihoods))
        metrics = {"acc": float(best == doc.gold)}
        if self.normalised:
            lengths = [len(choice) for choice in doc.choices]
            by_length = letter(argmax([ll / n for ll, n in zip(loglikelihoods, lengths, strict=True)]))
            metrics["acc_norm"] = float(by_length == doc.gold)
            if self.primary_metric == "acc_norm":
                best = by_length
        return Grade(best, best == doc.gold, metrics)


class OptionTexts(MultipleChoice):
    """Options compared by their text; canonical rows have ``question``, ``choices`` and the index ``answer``."""

    @abstractmethod
    def text(self, row: Row) -> str:
        """Return the prompt up to where an option follows after a blank."""

    def doc(self, row: Row, doc_id: int, subject: str) -> Doc:
        return Doc(
            doc_id=doc_id,
            subject=subject,
            question=row["question"],
            choices=tuple(row["choices"]),
            gold=letter(row["answer"]),
            questions=(self.text(row),),
            continuations=tuple(f" {choice}" for choice in row["choices"]),
        )

    def shots(self, rows: Sequence[Row], subject: str) -> Shots:
        """Use the first rows of the few-shot split, in order."""
        shown = rows[: self.options.num_fewshot]
        return Shots(examples=tuple(Example(self.text(row), f" {row['choices'][row['answer']]}") for row in shown))


def question_row(question: Any, choices: Sequence[Any], answer: int) -> dict[str, Any]:
    """Make a canonical row.

    Raises:
        ValueError, TypeError: something is not text, an option is empty, or the answer is not one of the options.

    """
    if not isinstance(question, str) or not all(isinstance(choice, str) and choice for choice in choices):
        raise TypeError("the question and every choice must be text, and no choice may be empty")
    if not 0 <= answer < len(choices):
        raise ValueError(f"answer {answer} is not one of the {len(choices)} choices")
    return {"question": question, "choices": list(choices), "answer": answer}


def labelled_row(raw: Mapping[str, Any], question: str = "question") -> dict[str, Any]:
    """Read a row whose options have labels, in the hub's form or nested as in the published JSONL.

    ``choices: {label: [...], text: [...]}`` or ``question: {stem, choices: [{label, text}, ...]}``; labels are letters
    or digits, any number of them.
    """
    nested = raw.get("question")
    if isinstance(nested, Mapping):
        text = nested["stem"]
        labels, texts = [c["label"] for c in nested["choices"]], [c["text"] for c in nested["choices"]]
    else:
        text = raw[question]
        labels, texts = list(raw["choices"]["label"]), list(raw["choices"]["text"])
    key = str(raw["answerKey"]).strip()
    if key not in labels:
        raise ValueError(f"answerKey {key[:20]!r} is not one of {', '.join(map(str, labels))[:60]}")
    return question_row(text, texts, labels.index(key))


def index_of(value: Any, allowed: list[str]) -> int:
    """Return the place in ``allowed`` of an answer that is published as text, number or truth value."""
    text = str(value).strip().lower()
    if text not in allowed:
        raise ValueError(f"answer {str(value)[:40]!r} is not one of {', '.join(allowed)}")
    return allowed.index(text)


# Letters are read strictly: a reply that does not plainly begin with one is unreadable. We never guess.

_OPENING = r"[(\[{\"'“‘]?"
_AFTER = r"(?=$|\s|[.,:;!)\]}*]|[\"'”’](?!\w))"


def read_letter(reply: str, count: int = 4) -> str | None:
    """Return the letter that stands alone at the start of ``reply``, or None.

    An opening bracket or quote may come before it; a blank, the end or a closing mark must follow. ``"B"``, ``" (C)"``
    and ``"D. Paris"`` are letters; ``"The CorreCt answer"``, ``"b"`` and ``"Because"`` are not, nor is the article in
    ``"A good question"``.
    """
    last = chr(ord("A") + count - 1)
    found = re.match(rf"{_OPENING}([A-{last}]){_AFTER}", reply.strip())
    if not found or re.match(rf"{_OPENING}A [a-z]", reply.strip()):
        return None
    return found[1]
