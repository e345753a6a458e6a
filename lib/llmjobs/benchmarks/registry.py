"""The list of benchmarks by name. A new one is added here in one line."""

from functools import cache
from importlib import import_module

from llmjobs.benchmarks.base import Benchmark

MODULES = {
    "mmlu": "llmjobs.benchmarks.mmlu:MMLU",
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
