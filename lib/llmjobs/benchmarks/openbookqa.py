"""OpenBookQA: elementary science. The prompt is the stem alone, without the book's facts."""

from llmjobs.benchmarks.base import HubDataset, Row
from llmjobs.benchmarks.multiple_choice import OptionTexts, labelled_row


class OpenBookQA(OptionTexts):
    name = "openbookqa"
    title = "OpenBookQA"
    source = "arXiv 1809.02789"
    hub = HubDataset("allenai/openbookqa", "main", {"test": "test", "fewshot": "train"})
    test_rows = 500
    normalised = True
    primary_metric = "acc_norm"

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Read the hub's or the published form."""
        return labelled_row(raw, "question_stem")

    def text(self, row: Row) -> str:
        """Return the stem; an option completes it."""
        return str(row["question"])
