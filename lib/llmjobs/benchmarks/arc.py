"""ARC: grade-school science questions with three to five options, whose texts are compared."""

from llmjobs.benchmarks.base import HubDataset, Row
from llmjobs.benchmarks.multiple_choice import OptionTexts, labelled_row

SPLITS = {"test": "test", "fewshot": "train"}


class ARCEasy(OptionTexts):
    """Questions that a retrieval or word co-occurrence method answers."""

    name = "arc_easy"
    title = "ARC-Easy"
    source = "arXiv 1803.05457"
    hub = HubDataset("allenai/ai2_arc", "ARC-Easy", SPLITS)
    test_rows = 2_376
    normalised = True

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Read the hub's or the published form; labels are letters or digits."""
        return labelled_row(raw)

    def text(self, row: Row) -> str:
        """Return the question alone; the options are not shown."""
        return f"Question: {row['question']}\nAnswer:"


class ARCChallenge(ARCEasy):
    """Questions that neither method answers."""

    name = "arc_challenge"
    title = "ARC-Challenge"
    hub = HubDataset("allenai/ai2_arc", "ARC-Challenge", SPLITS)
    test_rows = 1_172
    primary_metric = "acc_norm"
