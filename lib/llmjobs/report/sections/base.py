"""What a section is: a key, a title, whether the data has it, and what it says.

A new section is one file in this folder with ``SECTION = Section(...)``, named in
:data:`llmjobs.report.sections.ORDER`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llmjobs.report.blocks import Content
from llmjobs.report.measure import Measures


@dataclass(frozen=True)
class Section:
    """One chapter of the report. ``build`` is called only when ``wanted`` says that the data has it."""

    key: str
    title: str
    wanted: Callable[[Measures], bool]
    build: Callable[[Measures], Content]
