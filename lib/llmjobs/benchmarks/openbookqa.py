"""OpenBookQA: elementary science, the stem alone as prompt (the book's facts are not given)."""

from llmjobs.benchmarks.base import HubDataset, Row
from llmjobs.benchmarks.multiple_choice import OptionTexts, labelled_row


class OpenBookQA(OptionTexts):
    """Questions over an open book of elementary facts."""

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
        """Put the stem; an option completes it."""
        return str(row["question"])
