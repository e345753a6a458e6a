"""From one entry of a manifest's ``benchmarks:`` to the benchmark that runs."""

from collections.abc import Sequence
from typing import Protocol

from llmjobs.benchmarks.base import Benchmark, Options
from llmjobs.benchmarks.custom import Columns, custom_class
from llmjobs.benchmarks.registry import benchmark_class


class Entry(Protocol):
    """What is needed of a manifest's entry."""

    @property
    def name(self) -> str:
        """Name of a known benchmark, or of your own."""

    @property
    def file(self) -> str | None:
        """File of your own benchmark."""

    @property
    def question(self) -> str | None:
        """Column of the question."""

    @property
    def choices(self) -> Sequence[str] | str | None:
        """Columns of the options, or one column with a list."""

    @property
    def answer(self) -> str | None:
        """Column of the right answer."""

    def options(self) -> Options:
        """Effective options."""


def build_benchmark(entry: Entry) -> Benchmark:
    """Make the benchmark of an entry; ``load_rows(type(benchmark), …)`` then reads its rows.

    Raises:
        ValueError: the options do not fit each other; the text begins with the key that is wrong.

    """
    options = entry.options()
    if entry.file is None:
        return benchmark_class(entry.name)(options)
    choices = entry.choices if entry.choices is None or isinstance(entry.choices, str) else tuple(entry.choices)
    columns = Columns(entry.question or "question", entry.answer or "answer", choices)
    return custom_class(entry.name, columns, options.num_fewshot)(options)
