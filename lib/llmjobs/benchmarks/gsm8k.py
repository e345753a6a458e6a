"""GSM8K: grade-school word problems. The number is read from the reply in two ways.

``exact_match`` (strict) requires ``#### 18``, the form of the worked examples; ``flexible`` takes the last number.
"""

import re
from collections.abc import Sequence

from llmjobs.benchmarks.base import Benchmark, Doc, Example, Generation, Grade, HubDataset, Row, Shots

STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def strict_answer(text: str) -> str | None:
    """Return the first number after ``#### ``, or None."""
    found = STRICT.search(text)
    return plain_number(found[1]) if found else None


def flexible_answer(text: str) -> str | None:
    """Return the last number in the text, or None."""
    found = [match[0].strip() for match in NUMBER.finditer(text)]
    return plain_number(found[-1]) if found else None


def plain_number(text: str) -> str:
    """Remove thousands separators, dollar signs, everything up to ``#### ``, and one final point."""
    text = text.replace(",", "").replace("$", "")
    return re.sub(r"\.$", "", re.sub(r"(?s).*#### ", "", text)).lower()


class GSM8K(Benchmark):
    name = "gsm8k"
    title = "GSM8K"
    source = "arXiv 2110.14168"
    hub = HubDataset("openai/gsm8k", "main", {"test": "test", "fewshot": "train"})
    output_types = ("generate_until",)
    default_num_fewshot = 5
    primary_metric = "exact_match"
    test_rows = 1_319

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Read the question and its worked answer, whose last line is ``#### number``."""
        if not isinstance(raw["question"], str) or strict_answer(raw["answer"]) is None:
            raise ValueError("the answer must end in a line '#### number'")
        return {"question": raw["question"], "answer": raw["answer"]}

    def doc(self, row: Row, doc_id: int, subject: str) -> Doc:
        text = f"Question: {row['question']}\nAnswer:"
        return Doc(doc_id, subject, row["question"], (), plain_number(row["answer"]), (text,), ())

    def shots(self, rows: Sequence[Row], subject: str) -> Shots:
        """Use the first training rows with their full solutions."""
        shown = rows[: self.options.num_fewshot]
        return Shots(examples=tuple(Example(f"Question: {r['question']}\nAnswer:", f" {r['answer']}") for r in shown))

    def grade(self, doc: Doc, loglikelihoods: Sequence[float], is_greedy: Sequence[bool] = ()) -> Grade:
        """Refuse, because there are no options to compare."""
        raise TypeError("gsm8k is scored by generation")

    def generation(self, doc: Doc) -> Generation:
        """Generate until the next question would begin."""
        return Generation(stop=("Question:", "</s>", "<|im_end|>"), max_new_tokens=256)

    def grade_text(self, doc: Doc, text: str) -> Grade:
        """Grade by the strict number. A reply without one counts as unreadable."""
        strict = strict_answer(text)
        flexible = flexible_answer(text) == doc.gold
        return Grade(
            strict, strict == doc.gold, {"exact_match": float(strict == doc.gold), "flexible": float(flexible)}
        )
