"""What the tests ask of a benchmark: its docs and shots from sample rows, and its prompts as text."""

from typing import Any

from benchmark_samples import SAMPLES, SIX_PAIRS, Rows

from llmjobs.benchmarks.base import Benchmark, Doc, Options, Shots
from llmjobs.benchmarks.registry import benchmark_class


def make(name: str, num_fewshot: int, prompt: str | None = None, output_type: Any = None) -> Benchmark:
    found = benchmark_class(name)
    return found(Options(num_fewshot, prompt or found.prompts[0], output_type or found.output_types[0]))


def ask(benchmark: Benchmark, rows: dict[str, Rows] | None = None) -> tuple[list[Doc], Shots]:
    """The docs and shots of a benchmark from its sample rows, or from ``rows`` (hub split → rows)."""
    subject, samples = SAMPLES[benchmark.name]
    found = rows or samples
    assert benchmark.hub is not None
    splits = {own: found[hub] for own, hub in benchmark.hub.splits.items() if hub in found}
    if benchmark.name.startswith("truthfulqa"):
        splits["fewshot"] = found.get("fewshot", SIX_PAIRS)
    kept = {
        own: [benchmark.canonical(r) for r in rows if benchmark.belongs(r, subject) or benchmark.name == "mmlu"]
        for own, rows in splits.items()
    }
    docs = [benchmark.doc(row, at, subject) for at, row in enumerate(kept["test"])]
    return docs, benchmark.shots(kept.get("fewshot", []), subject)


def shots_to_try(name: str) -> list[int]:
    """No shots, and as many as the samples have."""
    return {"lambada_openai": [0], "mmlu": [0, 5], "mmlu_pro": [0, 5], "gsm8k": [0, 5]}.get(name, [0, 2])
