"""HellaSwag: which of four endings continues a scene? Scored on validation, whose labels are public."""

import re

from llmjobs.benchmarks.base import HubDataset, Row
from llmjobs.benchmarks.multiple_choice import OptionTexts, question_row


def clean(text: str) -> str:
    """Remove WikiHow's layout: `` [title]`` ends a sentence; other brackets are dropped with their contents."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


class HellaSwag(OptionTexts):
    name = "hellaswag"
    title = "HellaSwag"
    source = "arXiv 1905.07830"
    hub = HubDataset("Rowan/hellaswag", None, {"test": "validation", "fewshot": "train"})
    test_rows = 10_042
    normalised = True
    primary_metric = "acc_norm"

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Join activity and context and clean them; ``ctx_b`` begins a sentence."""
        scene = f"{raw['activity_label']}: {raw['ctx_a']} {raw['ctx_b'].capitalize()}"
        return question_row(clean(scene), [clean(ending) for ending in raw["endings"]], int(raw["label"]))

    def text(self, row: Row) -> str:
        """Return the scene; an ending follows."""
        return str(row["question"])
