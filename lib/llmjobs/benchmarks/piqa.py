"""PIQA: which of two solutions achieves a physical goal."""

from llmjobs.benchmarks.base import HubDataset, Row
from llmjobs.benchmarks.multiple_choice import OptionTexts, question_row


class PIQA(OptionTexts):
    name = "piqa"
    title = "PIQA"
    source = "arXiv 1911.11641"
    hub = HubDataset("baber/piqa", None, {"test": "validation", "fewshot": "train"})
    test_rows = 1_838
    normalised = True
    primary_metric = "acc_norm"

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Read goal, two solutions and a label 0 or 1."""
        return question_row(raw["goal"], [raw["sol1"], raw["sol2"]], int(raw["label"]))

    def text(self, row: Row) -> str:
        """Return the goal as a question."""
        return f"Question: {row['question']}\nAnswer:"
