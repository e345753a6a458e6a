"""MMLU-Pro: up to ten options, answered by thinking step by step. The letter after "answer is" counts."""

import re
from collections.abc import Sequence

from llmjobs.benchmarks.base import Benchmark, Doc, Example, Generation, Grade, HubDataset, Row, Shots

TEN = "ABCDEFGHIJ"
HEADER = (
    "The following are multiple choice questions (with answers) about {subject}. Think step by step and then finish "
    'your answer with "the answer is (X)" where X is the correct letter choice.\n'
)
THINK = "Let's think step by step."
ANSWER = re.compile(r"answer is \(?([ABCDEFGHIJ])\)?")


class MMLUPro(Benchmark):
    name = "mmlu_pro"
    title = "MMLU-Pro"
    source = "arXiv 2406.01574"
    hub = HubDataset("TIGER-Lab/MMLU-Pro", None, {"test": "test", "fewshot": "validation"})
    subjects = (
        "biology",
        "business",
        "chemistry",
        "computer_science",
        "economics",
        "engineering",
        "health",
        "history",
        "law",
        "math",
        "other",
        "philosophy",
        "physics",
        "psychology",
    )
    output_types = ("generate_until",)
    max_fewshot = 5
    default_num_fewshot = 5
    primary_metric = "exact_match"
    test_rows = 12_032

    @classmethod
    def belongs(cls, raw: Row, subject: str) -> bool:
        """Compare the column ``category``."""
        return str(raw["category"]).replace(" ", "_") == subject

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Read three to ten options, the right letter and, for shots, the worked reasoning."""
        options = list(raw["options"])
        if not 2 <= len(options) <= len(TEN) or raw["answer"] not in list(TEN[: len(options)]):
            raise ValueError(f"answer {str(raw['answer'])[:20]!r} is not one of {len(options)} options (2 to 10)")
        if not all(isinstance(text, str) for text in [raw["question"], *options]):
            raise TypeError("the question and every option must be text")
        return {
            "question": raw["question"],
            "options": options,
            "answer": raw["answer"],
            "cot_content": str(raw.get("cot_content") or ""),
        }

    def doc(self, row: Row, doc_id: int, subject: str) -> Doc:
        """Ask for reasoning that ends in a letter."""
        return Doc(doc_id, subject, row["question"], tuple(row["options"]), row["answer"], (self._text(row),), ())

    def shots(self, rows: Sequence[Row], subject: str) -> Shots:
        """Use the first validation rows with their reasoning. Its opening words are already in the prompt."""
        shown = rows[: self.options.num_fewshot]
        if any(not row["cot_content"] for row in shown):
            raise ValueError("a worked example has no cot_content")
        return Shots(
            HEADER.format(subject=subject.replace("_", " ")),
            tuple(Example(self._text(r), " " + r["cot_content"].replace(f"A: {THINK} ", "")) for r in shown),
        )

    @staticmethod
    def _text(row: Row) -> str:
        options = "".join(f"{letter}. {text.strip()}\n" for letter, text in zip(TEN, row["options"], strict=False))
        return f"Question:\n{row['question']}\nOptions:\n{options}Answer: {THINK}"

    def grade(self, doc: Doc, loglikelihoods: Sequence[float], is_greedy: Sequence[bool] = ()) -> Grade:
        """Refuse, because the options are not compared."""
        raise TypeError("mmlu_pro is scored by generation")

    def generation(self, doc: Doc) -> Generation:
        """Generate until the next question would begin."""
        return Generation(stop=("Question:",), max_new_tokens=2048)

    def grade_text(self, doc: Doc, text: str) -> Grade:
        """Grade by the first letter after "answer is". A reply without one counts as unreadable."""
        found = ANSWER.search(text)
        said = found[1] if found else None
        return Grade(said, said == doc.gold, {"exact_match": float(said == doc.gold)})
