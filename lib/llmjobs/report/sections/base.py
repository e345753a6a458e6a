"""A section: a key, a title, whether the data contains it, and how its content is built.

A new section is one file in this folder with ``SECTION = Section(...)``, named in :data:`llmjobs.report_job.ORDER`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from llmjobs.report.blocks import Content
from llmjobs.report.measure import Measures


@dataclass(frozen=True)
class Section:
    """One chapter of the report. ``build`` is called only if ``wanted`` returns true."""

    key: str
    title: str
    wanted: Callable[[Measures], bool]
    build: Callable[[Measures], Content]


MAX_NAME = 60


def file_name(kind: str, benchmark: str, measures: Measures, part: int | None = None) -> str:
    """Return a figure's file name. It contains the benchmark only if there are several."""
    safe = "".join(c if c.isalnum() and c.isascii() or c in "-_" else "-" for c in benchmark)[:MAX_NAME]
    names = [other.name.lower() for other in measures.study.benchmarks]
    if safe.lower() != benchmark.lower() or names.count(benchmark.lower()) > 1:
        safe += f"-{hashlib.sha256(benchmark.encode('utf-8', 'replace')).hexdigest()[:8]}"
    name = f"{kind}-{safe}" if len(measures.study.benchmarks) > 1 else kind
    return f"{name}-{part + 1}" if part is not None else name
