"""WinoGrande: whom or what does the blank stand for? Partial scoring: the same ending after either option."""

from collections.abc import Sequence

from llmjobs.benchmarks.base import Doc, Example, HubDataset, Row, Shots
from llmjobs.benchmarks.multiple_choice import MultipleChoice, index_of


class WinoGrande(MultipleChoice):
    name = "winogrande"
    title = "WinoGrande"
    source = "arXiv 1907.10641"
    hub = HubDataset("allenai/winogrande", "winogrande_xl", {"test": "validation", "fewshot": "train"})
    test_rows = 1_267

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Split the sentence at its first blank; the answer is 1 or 2."""
        start, blank, ending = raw["sentence"].partition("_")
        if not blank or not ending.strip():
            raise ValueError("the sentence has no blank '_' with text after it")
        choices = [raw["option1"], raw["option2"]]
        if not all(isinstance(choice, str) for choice in choices):
            raise TypeError("option1 and option2 must be text")
        return {
            "start": start,
            "ending": ending.strip(),
            "choices": choices,
            "answer": index_of(raw["answer"], ["1", "2"]),
        }

    def doc(self, row: Row, doc_id: int, subject: str) -> Doc:
        return Doc(
            doc_id=doc_id,
            subject=subject,
            question=f"{row['start']}_ {row['ending']}",
            choices=tuple(row["choices"]),
            gold="AB"[row["answer"]],
            questions=tuple(row["start"] + choice for choice in row["choices"]),
            continuations=(f" {row['ending']}",) * 2,
        )

    def shots(self, rows: Sequence[Row], subject: str) -> Shots:
        """Use the first training rows with the blank filled in."""
        shown = rows[: self.options.num_fewshot]
        return Shots(examples=tuple(Example(r["start"] + r["choices"][r["answer"]], f" {r['ending']}") for r in shown))
