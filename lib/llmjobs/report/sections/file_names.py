"""Names of the figures' files."""

from llmjobs.report.measure import Measures


def file_name(kind: str, benchmark: str, measures: Measures, part: int | None = None) -> str:
    """Return a figure's file name: the benchmark is named only where there are several."""
    safe = "".join(c if c.isalnum() and c.isascii() or c in "-_" else "-" for c in benchmark)
    name = f"{kind}-{safe}" if len(measures.study.benchmarks) > 1 else kind
    return f"{name}-{part + 1}" if part is not None else name
