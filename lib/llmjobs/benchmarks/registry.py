"""The list of benchmarks by name, and their descriptions as text. A new benchmark is one line here."""

from functools import cache
from importlib import import_module
from textwrap import fill

from llmjobs.benchmarks.base import Benchmark

MODULES = {
    "mmlu": "llmjobs.benchmarks.mmlu:MMLU",
    "mmlu_pro": "llmjobs.benchmarks.mmlu_pro:MMLUPro",
    "arc_easy": "llmjobs.benchmarks.arc:ARCEasy",
    "arc_challenge": "llmjobs.benchmarks.arc:ARCChallenge",
    "hellaswag": "llmjobs.benchmarks.hellaswag:HellaSwag",
    "winogrande": "llmjobs.benchmarks.winogrande:WinoGrande",
    "truthfulqa_mc1": "llmjobs.benchmarks.truthfulqa:TruthfulQAMC1",
    "truthfulqa_mc2": "llmjobs.benchmarks.truthfulqa:TruthfulQAMC2",
    "piqa": "llmjobs.benchmarks.piqa:PIQA",
    "boolq": "llmjobs.benchmarks.boolq:BoolQ",
    "openbookqa": "llmjobs.benchmarks.openbookqa:OpenBookQA",
    "commonsense_qa": "llmjobs.benchmarks.commonsense_qa:CommonsenseQA",
    "sciq": "llmjobs.benchmarks.sciq:SciQ",
    "gsm8k": "llmjobs.benchmarks.gsm8k:GSM8K",
    "lambada_openai": "llmjobs.benchmarks.lambada:LambadaOpenAI",
    "demo": "llmjobs.benchmarks.demo:Demo",
}
UNLISTED = {"custom": "llmjobs.benchmarks.custom:Custom"}


@cache
def benchmark_class(name: str) -> type[Benchmark]:
    """Return the class of benchmark ``name``; ``custom`` reads a user's own file.

    Raises:
        KeyError: there is none.

    """
    module, _, attribute = (MODULES | UNLISTED)[name].partition(":")
    found: type[Benchmark] = getattr(import_module(module), attribute)
    return found


def names() -> list[str]:
    """Return all benchmark names, in the order of the registry."""
    return list(MODULES)


HEAD = ("name", "questions", "subjects", "shots", "answer", "metric", "version", "rows")
ANSWERS = {"loglikelihood": "options", "generate_until": "text"}


def table() -> str:
    """One line per benchmark: questions, subjects, shots, output type, metric, version, source of its rows."""
    lines = [HEAD, *(_line(benchmark_class(name)) for name in names())]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEAD))]
    right = {1, 2, 3}
    return "\n".join(
        "  ".join(c.rjust(w) if at in right else c.ljust(w) for at, (c, w) in enumerate(zip(line, widths, strict=True)))
        .rstrip()
        for line in lines
    )  # fmt: skip


def markdown() -> str:
    """Return the table for the documentation."""
    rows = [HEAD, *(_line(benchmark_class(name)) for name in names())]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(HEAD), *lines[1:]])


def describe(found: type[Benchmark]) -> str:
    """Return everything that a manifest can set for one benchmark."""
    hub = found.hub
    rows = (
        "bundled"
        if hub is None
        else f"hub data set {hub.path}" + (f", configuration {hub.config}" if hub.config else "")
    )
    splits = "" if hub is None else "; " + ", ".join(f"{own} = {theirs}" for own, theirs in hub.splits.items())
    lines = [
        f"{found.name}: {found.title} ({found.source}), version {found.version}",
        f"questions     {found.test_rows:,}",
        f"rows          {rows}{splits}",
        f"prompt        {', '.join(found.prompts)}",
        f"output_type   {', '.join(found.output_types)}",
        f"num_fewshot   0–{found.max_fewshot} (default {found.default_num_fewshot})",
        f"metric        {found.primary_metric}",
    ]
    if found.categories:
        lines.append(f"categories    {', '.join(found.categories)}")
    subjects = fill(", ".join(found.subjects), 100, initial_indent="subjects      ", subsequent_indent=" " * 14)
    return "\n".join([*lines, subjects])


def _line(found: type[Benchmark]) -> tuple[str, ...]:
    return (
        found.name,
        f"{found.test_rows:,}",
        str(len(found.subjects)),
        str(found.default_num_fewshot),
        " or ".join(ANSWERS[kind] for kind in found.output_types),
        found.primary_metric,
        found.version,
        found.hub.path if found.hub else "bundled",
    )
