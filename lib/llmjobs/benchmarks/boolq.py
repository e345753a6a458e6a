"""BoolQ: a yes-or-no question about a passage. The validation rows of SuperGLUE."""

from llmjobs.benchmarks.base import HubDataset, Row
from llmjobs.benchmarks.multiple_choice import OptionTexts, index_of, question_row

NO_YES = ["no", "yes"]


class BoolQ(OptionTexts):
    name = "boolq"
    title = "BoolQ"
    source = "arXiv 1905.10044"
    hub = HubDataset("aps/super_glue", "boolq", {"test": "validation", "fewshot": "train"})
    test_rows = 3_270

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Read SuperGLUE's ``label`` (0 is no) or the published ``answer`` (true or false)."""
        value, allowed = (raw["label"], ["0", "1"]) if "label" in raw else (raw["answer"], ["false", "true"])
        if not isinstance(raw["passage"], str):
            raise TypeError("the passage must be text")
        return question_row(raw["question"], NO_YES, index_of(value, allowed)) | {"passage": raw["passage"]}

    def text(self, row: Row) -> str:
        """Return the passage and the question; the published question has no question mark."""
        return f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
