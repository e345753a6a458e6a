"""TruthfulQA: questions that people often answer wrongly. MC1 has one true option, MC2 several.

The protocol puts six fixed question-answer pairs before every question. The authors own their text, so it is not
bundled: it is read from an installed lm-eval, or from ``fewshot.jsonl`` (six lines with ``question`` and ``answer``) in
the folder that ``data:`` names. ``num_fewshot: 0`` asks without them.
"""

import math
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmjobs.benchmarks.base import Doc, Example, Grade, HubDataset, Row, Shots, argmax, letter
from llmjobs.benchmarks.multiple_choice import MultipleChoice
from llmjobs.errors import DataError

PAIRS = 6
_PAIR = re.compile(r"Q: (.+?)\s*\nA: (.+?)\s*(?=\n\nQ: |'\s*%})", re.DOTALL)


class TruthfulQAMC1(MultipleChoice):
    """One true option; the most likely option counts."""

    name = "truthfulqa_mc1"
    title = "TruthfulQA MC1"
    source = "arXiv 2109.07958"
    hub = HubDataset("truthfulqa/truthful_qa", "multiple_choice", {"test": "validation"})
    max_fewshot = PAIRS
    default_num_fewshot = PAIRS
    test_rows = 817
    column = "mc1_targets"

    @classmethod
    def own_rows(cls, subject: str, split: str) -> list[Row] | None:
        """Read the six pairs from an installed lm-eval."""
        if split != "fewshot":
            return None
        found = find_spec("lm_eval")
        places = found.submodule_search_locations if found else None
        path = Path(next(iter(places or ["."]))) / "tasks" / "truthfulqa" / "truthfulqa_mc1.yaml"
        if not path.is_file():
            raise DataError(
                f"{cls.name}: the six fixed question-answer pairs are not included; install lm-eval (pip install "
                "lm_eval), put them into DATA/fewshot.jsonl beside the rows, or set num_fewshot: 0 to ask without them"
            )
        return _pairs(path)

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Read options with labels 0 and 1, as two lists or as one mapping; or one of the six pairs."""
        if not isinstance(raw["question"], str):
            raise TypeError("the question must be text")
        if cls.column not in raw and "answer" in raw:
            return {"question": raw["question"], "answer": str(raw["answer"])}
        targets: Mapping[str, Any] = raw[cls.column]
        if set(targets) == {"choices", "labels"}:
            choices, labels = list(targets["choices"]), list(targets["labels"])
        else:
            choices, labels = list(targets), list(targets.values())
        if len(choices) != len(labels) or not set(labels) <= {0, 1} or 1 not in labels:
            raise ValueError(f"{cls.column}: every option needs a label 0 or 1, one of them at least 1")
        return {"question": raw["question"], "choices": choices, "labels": [int(label) for label in labels]}

    def doc(self, row: Row, doc_id: int, subject: str) -> Doc:
        golds = tuple(letter(at) for at, label in enumerate(row["labels"]) if label)
        return Doc(
            doc_id=doc_id,
            subject=subject,
            question=row["question"],
            choices=tuple(row["choices"]),
            gold=golds[0],
            questions=(f"Q: {row['question']}\nA:",),
            continuations=tuple(f" {choice}" for choice in row["choices"]),
            golds=golds,
        )

    def shots(self, rows: Sequence[Row], subject: str) -> Shots:
        """Return the six pairs."""
        shown = rows[: self.options.num_fewshot]
        return Shots(examples=tuple(Example(f"Q: {row['question']}\nA:", f" {row['answer']}") for row in shown))


class TruthfulQAMC2(TruthfulQAMC1):
    """The share of probability on all true options; right if the most likely option is true."""

    name = "truthfulqa_mc2"
    title = "TruthfulQA MC2"
    primary_metric = "mc2"
    column = "mc2_targets"

    def grade(self, doc: Doc, loglikelihoods: Sequence[float], is_greedy: Sequence[bool] = ()) -> Grade:
        """Normalise the probabilities over the options and sum those of the true ones."""
        best = letter(argmax(loglikelihoods))
        largest = max(loglikelihoods)
        shares = [math.exp(value - largest) for value in loglikelihoods]
        true = sum(share for at, share in enumerate(shares) if letter(at) in doc.golds)
        return Grade(best, best in doc.golds, {"mc2": true / sum(shares), "acc": float(best in doc.golds)})


def _pairs(path: Path) -> list[Row]:
    import yaml

    found = _PAIR.findall(str(yaml.safe_load(path.read_text(encoding="utf-8"))["doc_to_text"]))
    if len(found) != PAIRS:
        raise DataError(
            f"{path}: {len(found)} question-answer pairs, but {PAIRS} are expected; use another version of lm-eval"
        )
    return [{"question": question, "answer": answer} for question, answer in found]
