"""LAMBADA, OpenAI's version: greedy decoding must produce the last word of a passage.

A tokenizer's BOS matters here, so its default is followed (without BOS, one model scored .004 instead of .67).
"""

import math
from collections.abc import Sequence

from llmjobs.benchmarks.base import Benchmark, Doc, Grade, HubDataset, Row, Shots


class LambadaOpenAI(Benchmark):
    name = "lambada_openai"
    title = "LAMBADA (OpenAI)"
    source = "arXiv 1606.06031"
    hub = HubDataset("EleutherAI/lambada_openai", "default", {"test": "test"})
    max_fewshot = 0
    fewshot_split = None
    target_delimiter = ""  # the blank before the word belongs to the passage, in a chat template too
    test_rows = 5_153

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Read a text of at least two words."""
        if not isinstance(raw["text"], str) or not all(raw["text"].rpartition(" ")[::2]):
            raise ValueError("the text must have at least two words")
        return {"text": raw["text"]}

    def doc(self, row: Row, doc_id: int, subject: str) -> Doc:
        """Ask for everything after the last blank."""
        context, _, word = row["text"].rpartition(" ")
        return Doc(doc_id, subject, context, (), word, (context,), (f" {word}",))

    def shots(self, rows: Sequence[Row], subject: str) -> Shots:
        """Return no shots, because there is no other split."""
        return Shots()

    def grade(self, doc: Doc, loglikelihoods: Sequence[float], is_greedy: Sequence[bool] = ()) -> Grade:
        """Right if greedy decoding produces the word. Any other word is not generated, so it is recorded as empty."""
        right = bool(is_greedy[0])
        return Grade(doc.gold if right else "", right, {"acc": float(right), "perplexity": loglikelihoods[0]})

    @classmethod
    def aggregate(cls, metric: str, values: Sequence[float]) -> float:
        """Perplexity is stored per doc as its log-likelihood and aggregated as exp(−mean)."""
        mean = super().aggregate(metric, values)
        return math.exp(-mean) if metric == "perplexity" else mean
