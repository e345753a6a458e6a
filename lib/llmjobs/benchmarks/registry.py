"""The list of benchmarks by name. A new one is added here in one line."""

from functools import cache
from importlib import import_module

from llmjobs.benchmarks.base import Benchmark

MODULES = {
    "mmlu": "llmjobs.benchmarks.mmlu:MMLU",
    "demo": "llmjobs.benchmarks.demo:Demo",
}


@cache
def benchmark_class(name: str) -> type[Benchmark]:
    """Return the class of benchmark ``name``.

    Raises:
        KeyError: there is none.

    """
    module, _, attribute = MODULES[name].partition(":")
    found: type[Benchmark] = getattr(import_module(module), attribute)
    return found


def names() -> list[str]:
    """All benchmark names, in the order of the registry."""
    return list(MODULES)
