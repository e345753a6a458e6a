"""Names that read from right to left, set by themselves: figures stay behind them (UAX 9, isolates).

Without this, a number behind such a name takes part in its order: ``78.2%`` would move to the name's left, and the
figures of two names in a row change places. What a report's names are is given once, for all of its pages.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from llmjobs.report.study import Study

FIRST, END = "\u2068", "\u2069"
"""Marks around an isolate whose own first letter gives its direction, for readers that know them (a browser)."""
RIGHT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
"""The blocks of the scripts that read from right to left."""
NAMED = frozenset({"model", "judge", "name", "agent", "set", "first", "second", "benchmark", "subject"})
"""Keys of a job's summary under which names stand."""
_names: re.Pattern[str] | None = None


@contextmanager
def isolated(names: Iterable[str]) -> Iterator[None]:
    """While this lasts, :func:`parts_of` separates each of ``names`` from the text around it."""
    global _names
    before, _names = _names, _pattern(names)
    try:
        yield
    finally:
        _names = before


def _pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """Find names with letters that read from right to left, and their words, since a line may break in a name.

    Inside running text of such a script, a name is a word like others: there, what is around it stays in order.
    """
    found = {name.strip() for name in names if re.search(f"[{RIGHT}]", name)}
    if not found:
        return None
    words = {word for name in found for word in name.split() if re.search(f"[{RIGHT}]", word)}
    longest_first = [*sorted(found, key=_size), *sorted(words - found, key=_size)]
    before, after = rf"(?<![\w{RIGHT}])(?<![{RIGHT}]\s)", rf"(?![\w{RIGHT}]|\s[{RIGHT}])"
    return re.compile(f"{before}({'|'.join(map(re.escape, longest_first))}){after}")


def _size(name: str) -> tuple[int, str]:
    return -len(name), name


def parts_of(text: str) -> list[str]:
    """Split a text: at odd places stand names that are set by themselves."""
    return _names.split(text) if _names else [text]


def marked(text: str) -> str:
    """Put marks around the names in a text that a browser or an editor will set."""
    return "".join(f"{FIRST}{part}{END}" if at % 2 else part for at, part in enumerate(parts_of(text)))


def names_in(study: Study) -> set[str]:
    """All names that a report's sentences may hold: models, judges, benchmarks, subjects."""
    names = {entry.label for entry in study.entries} | {entry.info.id for entry in study.entries}
    for benchmark in study.benchmarks:
        names |= {benchmark.name, *benchmark.subjects}
    names |= {table.benchmark for table in study.graded}
    for run in study.runs:
        names |= {cell.model for cell in run.cells} | set(_named(run.summary))
    return names | {name.rpartition("/")[2] for name in names}


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in NAMED and isinstance(inner, str):
                yield inner
            yield from _named(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named(inner)
