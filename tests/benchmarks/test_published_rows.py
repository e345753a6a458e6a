"""Real rows in their published forms, if they are beside the checkout."""

from pathlib import Path

import pytest
from asking import make

from llmjobs.benchmarks.mmlu import MMLU
from llmjobs.benchmarks.registry import benchmark_class
from llmjobs.benchmarks.rows import load_rows


def test_mmlu_in_both_layouts_is_the_same(shared_data: Path) -> None:
    counts = {"test": 0, "fewshot": 0}
    for subject in MMLU.subjects:
        for split in counts:
            found = load_rows(MMLU, subject, split, data=str(shared_data / "mmlu"))
            original = load_rows(MMLU, subject, split, data=str(shared_data / "mmlu_original_layout"))
            assert found.hash == original.hash
            counts[split] += len(found.rows)
    assert counts == {"test": MMLU.test_rows, "fewshot": 57 * 5}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("gsm8k", "gsm8k/test.jsonl"),
        ("truthfulqa_mc1", "truthfulqa/data/mc_task.json"),
        ("truthfulqa_mc2", "truthfulqa/data/mc_task.json"),
        ("commonsense_qa", "commonsenseqa/dev_rand_split.jsonl"),
    ],
)
def test_whole_published_files(name: str, file: str, shared_data: Path) -> None:
    found = benchmark_class(name)
    rows = load_rows(found, "all", "test", data=str(shared_data / file)).rows
    assert len(rows) == found.test_rows
    benchmark = make(name, 0)
    docs = [benchmark.doc(row, at, "all") for at, row in enumerate(rows)]
    assert all(doc.gold for doc in docs)
