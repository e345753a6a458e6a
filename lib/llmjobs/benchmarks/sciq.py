"""SciQ: crowd-sourced science questions after a supporting paragraph. The right option always comes last."""

from llmjobs.benchmarks.base import HubDataset, Row
from llmjobs.benchmarks.multiple_choice import OptionTexts, question_row

CHOICES = ("distractor1", "distractor2", "distractor3", "correct_answer")


class SciQ(OptionTexts):
    name = "sciq"
    title = "SciQ"
    source = "arXiv 1707.06209"
    hub = HubDataset("allenai/sciq", None, {"test": "test", "fewshot": "train"})
    test_rows = 1_000
    normalised = True

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Read three distractors and the right answer; the support may be empty."""
        if not isinstance(raw["support"], str):
            raise TypeError("the support must be text")
        return question_row(raw["question"], [raw[name] for name in CHOICES], 3) | {"support": raw["support"]}

    def text(self, row: Row) -> str:
        """Return the support, then the question."""
        return f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:"
