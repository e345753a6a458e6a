"""The list of benchmarks by name. A new one is added here in one line."""

from functools import cache
from importlib import import_module

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
    """Return the class of benchmark ``name``; ``custom`` is the one that reads a file of your own.

    Raises:
        KeyError: there is none.

    """
    module, _, attribute = (MODULES | UNLISTED)[name].partition(":")
    found: type[Benchmark] = getattr(import_module(module), attribute)
    return found


def names() -> list[str]:
    """All benchmark names, in the order of the registry."""
    return list(MODULES)
